"""Random small networks and ways to export them: what the tests of the whole chain draw from."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.helpers import small_tofe
from tofe_export.model.approximator import DISCARD, FUSE
from tofe_export.model.config import STAGES
from tofe_export.model.selector import CLS_ATTENTION, NO_SELECTOR
from tofe_export.model.tofe import ToFe
from tofe_export.runners.base import FEATURES, LOGITS

VIT, DISTILLED = "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"
LVVITS = ("lvvit_t", "lvvit_s", "lvvit_l")  # T divides no residual branch, S and L do
RETURNING = ("bottleneck", "identity", "block")
GONE = (DISCARD, FUSE)
LEARNED = ("mlp", "linear", "attention")

SHARES = (
    "cls", "cls-features", "cls-gone",
    "pooled", "pooled-features",
    "lvvit", "lvvit-features", "lvvit-gone",
)  # fmt: skip
"""Parts of the space that are drawn from one by one, so that none is left out and workers share the time.

The head, and behind it what becomes of frozen tokens: they come back for the logits, or for features; or are gone.
"""
PER_SHARE = 25
EVERY_RUN = Path(__file__).with_name("every_run.jsonl")
POOL = 200
MOST_BLOCKS = 4


@dataclass(frozen=True)
class Configuration:
    """One example. Its `repr` makes it again.

    Attributes:
        network: of `small_tofe`.
        keep, rearrange, outputs, taps: of `export_tofe`.
        batch: images it is run on.
        tokens: N, patch tokens of an image.
    """

    network: dict[str, Any] = field(hash=False)
    keep: tuple[int, ...]
    rearrange: bool
    outputs: tuple[str, ...]
    taps: bool
    batch: int
    tokens: int

    def build(self) -> ToFe:
        """The network. Ranks do not depend on where a selector's scores lie, so they are not centred."""
        return small_tofe(**self.network, centred=False)


@st.composite
def configurations(draw: st.DrawFn, share: str) -> Configuration:
    head, _, end = share.partition("-")
    # Tracing takes nearly all the time, and as much for each block as for all that is there once: few blocks, then.
    stages = draw(st.sampled_from((1, 2, 1, 0, 1, 3)))
    depth = min(MOST_BLOCKS, max(1, stages) + draw(st.sampled_from((0, 1, 0, 0, 3))))
    starts = draw(st.lists(st.integers(0, depth - 1), min_size=stages, max_size=stages, unique=True).map(sorted))
    selector, approximator = draw(_kinds(end == "gone")) if stages else (NO_SELECTOR, draw(_without_stages(end)))
    (rows, columns), patch = draw(st.sampled_from(_GRIDS)), draw(st.sampled_from((4, 8, 16)))
    width, heads = draw(st.sampled_from(((16, 2), (24, 3), (32, 2), (32, 4), (16, 1))))
    outputs = draw(st.sampled_from(((FEATURES,), (LOGITS, FEATURES)))) if end == "features" else (LOGITS,)
    return Configuration(
        network={
            **draw(_head(head)),
            "selector": selector,
            "approximator": approximator,
            "stage_starts": tuple(starts),
            "dense_output": end != "gone" and draw(st.booleans()),
            "depth": depth,
            "embed_dim": width,
            "num_heads": heads,
            "patch_size": patch,
            "img_size": (rows * patch, columns * patch),
            "seed": draw(st.integers(0, 99)),
        },
        keep=draw(_keep_counts(rows * columns, stages, approximator)),
        rearrange=draw(st.sampled_from((True, False))),
        outputs=outputs,
        taps=draw(st.booleans()),
        batch=draw(st.sampled_from((2, 1, 5, 3, 4))),
        tokens=rows * columns,
    )


_GRIDS = ((2, 3), (3, 3), (4, 4), (5, 2), (3, 1), (2, 2), (3, 5), (1, 1))


def _kinds(gone: bool) -> st.SearchStrategy[tuple[str, str]]:
    """(selector, approximator) that go together, drawn at once: Hypothesis likes to repeat single choices."""
    if not gone:
        return st.sampled_from([*itertools.product(LEARNED, RETURNING)])
    return st.sampled_from(
        [*((CLS_ATTENTION, gone) for gone in (FUSE, DISCARD)), *((kind, DISCARD) for kind in LEARNED)]
    )


def _without_stages(end: str) -> st.SearchStrategy[str]:
    return st.sampled_from((DISCARD,) if end == "gone" else RETURNING)


@st.composite
def _head(draw: st.DrawFn, head: str) -> dict[str, Any]:
    """Backbone, prefix tokens and pooling."""
    registers = draw(st.sampled_from((0, 1, 0, 2)))
    if head == "lvvit":
        return {"backbone": draw(st.sampled_from(LVVITS)), "reg_tokens": registers}
    if head == "pooled":
        pool = draw(st.sampled_from(("avg", "max", "avg", "map")))
        return {
            "backbone": VIT,
            "reg_tokens": registers,
            "class_token": draw(st.booleans()),
            "global_pool": pool,
        }
    if not registers and draw(st.booleans()):
        return {"backbone": DISTILLED}  # two prefix tokens, two heads
    # Layer scales are folded into the weights before them.
    return {"backbone": VIT, "reg_tokens": registers, "init_values": draw(st.sampled_from((None, 0.5)))}


@st.composite
def _keep_counts(draw: st.DrawFn, tokens: int, stages: int, approximator: str) -> tuple[int, ...]:
    keep: list[int] = []
    left = tokens
    for _ in range(stages):
        counts = (range(1, left + 1), (1,), (left,))  # both ends often
        keep.append(draw(st.sampled_from(draw(st.sampled_from(counts)))))
        if approximator in GONE and keep[-1] < left:
            left = keep[-1] + (approximator == FUSE)  # the fused token may be kept as well
    return tuple(keep)


def explore(
    share: str, do: Callable[[Configuration], object], count: int, phases: tuple[Phase, ...], new: bool
) -> None:
    """Calls `do` with `count` configurations of a share, drawn afresh or as ever."""

    def one(configuration: Configuration) -> None:
        do(configuration)

    each = settings(
        max_examples=count,
        database=None,
        deadline=None,
        derandomize=not new,
        phases=phases,
        suppress_health_check=[HealthCheck.too_slow],
    )(given(configurations(share))(one))
    # Without a seed, derandomized examples depend on the name of the function, which is the same for every share.
    (each if new else seed(SHARES.index(share))(each))()


@functools.cache
def fixed(share: str) -> list[Configuration]:
    """The configurations of a share that are the same in every run.

    Of few examples Hypothesis makes half the simplest choice, so more are drawn than are taken.
    """
    pool: list[Configuration] = []
    explore(share, pool.append, POOL, (Phase.generate,), new=False)
    return _most_pairs(pool, PER_SHARE)


def every_run(share: str) -> list[Configuration]:
    """Those of a share that are checked in every run, few that show what wanted.py asks for; choose.py wrote them."""
    every = [json.loads(line) for line in EVERY_RUN.read_text().splitlines()]
    return [_from_json(one) for one in every if one.pop("share") == share]


def _from_json(fields: dict[str, Any]) -> Configuration:
    network = {**fields["network"], **{name: tuple(fields["network"][name]) for name in ("stage_starts", "img_size")}}
    return Configuration(
        **{**fields, "network": network, **{name: tuple(fields[name]) for name in ("keep", "outputs")}}
    )


def _most_pairs(pool: list[Configuration], count: int) -> list[Configuration]:
    """In turn, the one with the most pairs of traits that no earlier one has, for the time that its export takes."""
    pairs = {repr(it): (it, {*itertools.combinations(sorted(traits(it)), 2)}) for it in pool}
    taken: list[Configuration] = []
    seen: set[tuple[str, str]] = set()
    for _ in range(count):
        best = max(pairs, key=lambda name: (1 + len(pairs[name][1] - seen)) / (1 + pairs[name][0].network["depth"]))
        it, its = pairs.pop(best)
        taken.append(it)
        seen |= its
    return taken


def traits(it: Configuration) -> set[str]:
    """What a configuration is an example of."""
    network, size = it.network, it.network["img_size"]
    names = ("backbone", "selector", "depth", "embed_dim", "patch_size", "reg_tokens", "class_token", "global_pool")
    found = {f"{name} {network[name]}" for name in names if name in network}
    found |= {f"outputs {'+'.join(it.outputs)}", f"batch {it.batch}", f"stages {len(it.keep)}"}
    found |= {"plugin" if it.rearrange else "elide", "taps" if it.taps else "no taps"}
    found |= {"square" if size[0] == size[1] else "oblong", "dense" if network["dense_output"] else "not dense"}
    if it.keep:
        found |= {f"approximator {network['approximator']}", f"starts at {network['stage_starts'][0]}"}
    for count in it.keep:
        ends = {it.tokens: "all", it.tokens - 1: "all but one", 1: "one"}
        found.add(f"keeps {ends.get(count, 'some')}")
    return found


assert STAGES == 3  # what `configurations` draws up to
