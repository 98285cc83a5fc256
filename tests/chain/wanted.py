"""What the configurations of every run must show: single traits, and pairs of them that go wrong together."""

from __future__ import annotations

import itertools

from tests.chain.configurations import DISTILLED, GONE, LEARNED, LVVITS, MOST_BLOCKS, RETURNING, VIT
from tofe_export.model.selector import CLS_ATTENTION, NO_SELECTOR

_OUTPUTS = [f"outputs {names}" for names in ("logits", "features", "logits+features")]
_STAGES, _FORMS = [f"stages {count}" for count in (1, 2, 3)], ["plugin", "elide"]
_APPROXIMATORS = [f"approximator {name}" for name in (*RETURNING, *GONE)]
_KEEPS = [f"keeps {what}" for what in ("one", "some", "all but one", "all")]

_PAIRS = {
    *itertools.product([f"selector {name}" for name in LEARNED], [f"approximator {name}" for name in RETURNING]),
    *((f"selector {name}", "approximator discard") for name in (*LEARNED, CLS_ATTENTION)),
    (f"selector {CLS_ATTENTION}", "approximator fuse"),
    *itertools.product(_FORMS, [*_APPROXIMATORS, *_STAGES, *_OUTPUTS, *_KEEPS, "taps", "no taps"]),
    *itertools.product(_FORMS, [f"backbone {name}" for name in (VIT, DISTILLED, *LVVITS)]),
    *itertools.product((f"batch {size}" for size in range(1, 6)), [*_FORMS, *_STAGES, "square", "oblong"]),
    *itertools.product(_KEEPS, _STAGES),
    *itertools.product(("dense", "not dense"), _OUTPUTS),
}
_ALONE = {
    f"selector {NO_SELECTOR}",
    "stages 0",
    "class_token False",
    "starts at 0",
    "starts at 1",
    *(f"depth {depth}" for depth in range(1, MOST_BLOCKS + 1)),
    *(f"global_pool {name}" for name in ("avg", "max", "map")),
    *(f"reg_tokens {count}" for count in range(3)),
    *(f"patch_size {size}" for size in (4, 8, 16)),
}
WANTED = {*(frozenset(pair) for pair in _PAIRS), *(frozenset((name,)) for name in _ALONE)}
"""Sets of traits; one configuration must have all of a set."""
PAIRS_SHOWN = 0.8
"""How many of all pairs of traits that the 200 fixed configurations show, those of every run show too."""
