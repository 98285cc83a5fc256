"""Small random networks and how they are exported: everything that a user can choose, and both ends of every range."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

GONE = ("discard", "fuse")


@dataclass(frozen=True)
class Case:
    """One configuration of the whole chain.

    Attributes:
        network: arguments of `tests.helpers.small_tofe`.
        size: height and width in pixels.
        tokens: patch tokens of an image.
        keep: keep count per stage.
        rearrange: put tokens back after each stage.
        outputs: what the exported model returns.
        taps: per-stage values are outputs of the file.
        batch: images that are run.
    """

    network: dict[str, Any]
    size: tuple[int, int]
    tokens: int
    keep: tuple[int, ...]
    rearrange: bool
    outputs: tuple[str, ...]
    taps: bool
    batch: int
    kinds: frozenset[str] = field(default_factory=frozenset, compare=False)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A configuration that the program must take; what cannot go together is never drawn together."""
    kind = draw(st.sampled_from(["tofe", "tofe", "lvvit", "evit", "dense"]))
    depth = draw(st.sampled_from([1, 1, 1, 2, 2, 3, 4]))
    starts = () if kind == "dense" else tuple(sorted(draw(_starts(depth))))
    selector = {"evit": "cls-attention", "dense": "none"}.get(kind) or draw(
        st.sampled_from(["mlp", "linear", "attention"])
    )
    lvvit = kind == "lvvit" or (kind in ("evit", "dense") and draw(st.booleans()))
    known = ("bottleneck", "identity", "block", "discard")
    approximator = draw(st.sampled_from(GONE if kind == "evit" else known[:1] if kind == "dense" else known))
    gone = approximator in GONE
    outputs = draw(st.sampled_from([("logits",)] if gone else [("logits",), ("features",), ("logits", "features")]))
    # Without a CLS token the head pools; a pool over what was discarded would be another network.
    pooled = not lvvit and not gone and selector != "cls-attention" and draw(st.booleans())
    patch = draw(st.sampled_from([8, 16]))
    size = draw(st.sampled_from([(16, 16), (32, 32), (32, 48), (48, 16)])) if not lvvit else (32, 32)
    patch = 16 if lvvit else patch
    size = (max(size[0], patch), max(size[1], patch))
    tokens = (size[0] // patch) * (size[1] // patch)
    heads = draw(st.sampled_from([1, 2, 4]))
    network: dict[str, Any] = {
        "backbone": draw(st.sampled_from(["lvvit_t", "lvvit_s", "lvvit_l"])) if lvvit else "vit_tiny_patch16_224",
        "selector": selector,
        "approximator": approximator,
        "stage_starts": starts,
        "depth": depth,
        "patch_size": patch,
        "img_size": list(size),
        "embed_dim": heads * draw(st.sampled_from([8, 16])),
        "num_heads": heads,
        "num_classes": draw(st.sampled_from([2, 5])),
        "global_pool": "avg" if pooled else "token",
        "dense_output": kind != "dense" and not gone and "features" in outputs and draw(st.booleans()),
        "seed": draw(st.integers(0, 999)),
    }
    if not lvvit:
        network |= {"reg_tokens": draw(st.integers(0, 2)), "class_token": not pooled or draw(st.booleans())}
    keep = draw(_keep_counts(len(starts), tokens, gone, approximator == "fuse"))
    return Case(
        network,
        size,
        tokens,
        keep,
        draw(st.booleans()),
        outputs,
        draw(st.booleans()),
        draw(st.sampled_from([1, 1, 2, 3, 5])),
    )


@st.composite
def _starts(draw: st.DrawFn, depth: int) -> list[int]:
    count = draw(st.sampled_from([1, 1, 2, 3]))
    return draw(st.lists(st.integers(0, depth - 1), min_size=1, max_size=min(count, depth), unique=True))


@st.composite
def _keep_counts(draw: st.DrawFn, stages: int, tokens: int, gone: bool, fused: bool) -> tuple[int, ...]:
    """One count a stage, 1 and all of them drawn often; where tokens are discarded none can come back."""
    keep: list[int] = []
    left = tokens
    for _ in range(stages):
        keep.append(draw(st.one_of(st.sampled_from([1, left]), st.integers(1, left))))
        if gone and keep[-1] < left:
            left = keep[-1] + fused  # the fused token may be kept as well
    return tuple(keep)


def traits(case: Case) -> set[str]:
    """What a case is an example of, in words."""
    network = case.network
    found = {
        f"selector {network['selector']}",
        f"approximator {network['approximator']}" if network["stage_starts"] else "approximator unused",
        f"backbone {network['backbone']}",
        f"depth {network['depth']}",
        f"{len(network['stage_starts'])} stages",
        f"batch {case.batch}",
        f"outputs {'+'.join(case.outputs)}",
        "plugin" if case.rearrange else "elide",
        "taps" if case.taps else "no taps",
        "square" if case.size[0] == case.size[1] else "not square",
        f"pool {network['global_pool']}",
        f"registers {network.get('reg_tokens', 0)}",
        "CLS" if network.get("class_token", True) else "no CLS",
        "dense output" if network["dense_output"] else "logits only",
    }
    if any(count == 1 for count in case.keep):
        found.add("keeps one")
    if any(count == case.tokens for count in case.keep):
        found.add("keeps all")
    if any(1 < count < case.tokens for count in case.keep):
        found.add("keeps some")
    return found
