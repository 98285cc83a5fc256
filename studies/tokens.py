"""What becomes of tokens: how often they return, how far estimates are from the teacher, and what they attend to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from studies.attention import reused_attention, why_not
from tofe_export.model import backbones
from tofe_export.model.blocks import attend
from tofe_export.model.families import Backbone
from tofe_export.model.outputs import MaskedOutput
from tofe_export.model.stage import Stage
from tofe_export.model.tofe import ToFe
from tofe_export.training.losses import mean_square

KINDS = ("object", "border", "background")
_IMAGES, _BATCH = 2000, 250
_Sums = dict[tuple[int, str], NDArray[np.float64]]
"""(stage, kind of token) -> number of tokens, and the sums of a measure before and after approximation."""


@torch.no_grad()
def histories(model: ToFe, choice: Any, images: Tensor) -> dict[str, float]:
    """Share of all tokens by what happened to them, stage by stage: "KFK" was kept, frozen, and kept again."""
    seen: dict[str, int] = {}
    for part in torch.split(images[:_IMAGES], _BATCH):
        out = model.forward_masked(part, choice())
        kept = torch.stack(out.masks, dim=2).bool().flatten(0, 1).cpu().numpy()
        for row, number in zip(*np.unique(kept, axis=0, return_counts=True), strict=True):
            name = "".join("K" if one else "F" for one in row)
            seen[name] = seen.get(name, 0) + int(number)
    total = sum(seen.values())
    return {name: number / total for name, number in sorted(seen.items())}


@torch.no_grad()
def errors(model: ToFe, teacher: Backbone, choice: Any, images: Tensor) -> list[dict[str, Any]]:
    """Mean squared distance of frozen tokens to the teacher's at the end of the stage, over the mean square of those.

    Returns:
        An entry a stage with an approximator: `before` (the token as it went in) and `after` (its estimate), over all
        frozen tokens, and the same by kind of token (`KINDS`) and by the number of stages that it has been frozen for.
    """
    sums: _Sums = {}
    for part in torch.split(images[:_IMAGES], _BATCH):
        kinds = _kinds(teacher, part)
        for stage, frozen, before, after, run in _stages(model, teacher, choice, part):
            groups = {"all": frozen, **{kind: frozen & there for kind, there in kinds.items()}}
            groups |= {f"for-{length}": frozen & (run == length) for length in range(1, stage + 2)}
            for name, where in groups.items():
                _add(sums, (stage, name), before[where], after[where])
    return _means(sums)


@torch.no_grad()
def attention(model: ToFe, teacher: Backbone, keep: tuple[int, ...], images: Tensor) -> list[dict[str, Any]]:
    """Cosine of reused tokens' attention to the teacher's, before and after approximation, by kind of token.

    See `studies.attention`; empty for networks that reuse none.
    """
    sums: _Sums = {}
    for part in [] if why_not(model) else torch.split(images[:_IMAGES], _BATCH):
        kinds = _kinds(teacher, part)
        for stage in reused_attention(model, teacher, keep, part):
            for name, there in {"all": torch.ones_like(stage.tokens), **kinds}.items():
                chosen = there[stage.tokens]
                _add(sums, (stage.stage, name), stage.near_before[chosen], stage.near_after[chosen])
    return _means(sums)


def _add(sums: _Sums, place: tuple[int, str], before: Tensor, after: Tensor) -> None:
    own = np.array([len(before), float(before.sum()), float(after.sum())])
    sums[place] = sums.get(place, np.zeros(3)) + own


def _means(sums: _Sums) -> list[dict[str, Any]]:
    """An entry per stage: kind of token -> their number, and both means; without kinds that did not occur."""
    found: dict[int, dict[str, Any]] = {}
    for (stage, kind), (number, before, after) in sums.items():
        entry = found.setdefault(stage, {"stage": stage})
        if number:
            entry[kind] = {"tokens": int(number), "before": before / number, "after": after / number}
    return list(found.values())


def _stages(
    model: ToFe, teacher: Backbone, choice: Any, images: Tensor
) -> Iterator[tuple[int, Tensor, Tensor, Tensor, Tensor]]:
    """Per stage with an approximator: its number, frozen tokens bool [B, N], errors before and after [B, N] over the
    teacher's mean square, and for how many stages in a row each token is frozen now [B, N]."""
    entered: dict[int, Tensor] = {}
    with ExitStack() as hooks:
        for stage in model.stages:
            if isinstance(stage, Stage) and stage.approximator is not None:
                hooks.enter_context(stage.approximator.register_forward_pre_hook(_recorder(entered, stage.index)))
        out: MaskedOutput = model.forward_masked(images, choice())
    ends = [blocks.stop for blocks in model.stage_blocks[: len(out.estimates)]]
    _, tokens = backbones.dense_tokens(teacher, images, ends)
    run = torch.zeros_like(out.masks[0])
    for stage_number, (mask, estimate, dense) in enumerate(zip(out.masks, out.estimates, tokens, strict=False)):
        target = dense[:, model.prefix :]
        run = (run + 1) * (1 - mask)
        power = mean_square(target)
        before, after = (
            (one - target).square().mean(dim=2).double() / power for one in (entered[stage_number], estimate)
        )
        yield stage_number, mask == 0, before, after, run


def _recorder(entered: dict[int, Tensor], stage: int) -> Any:
    def record(part: object, inputs: tuple[Tensor, ...]) -> None:
        entered[stage] = inputs[0]

    return record


def _kinds(teacher: Backbone, images: Tensor) -> dict[str, Tensor]:
    """bool [B, N] by kind. The border is the outermost ring; of the rest the half that the teacher's CLS token looks
    at most, in its last block, counts as object: these images have no masks to know better by."""
    _, (tokens,) = backbones.dense_tokens(teacher, images, [len(teacher.blocks) - 1])
    _, weights = attend(teacher.blocks[-1], tokens)
    looked_at = weights[:, :, 0, int(teacher.num_prefix_tokens) :].float().mean(dim=1)
    rows, columns = teacher.patch_embed.grid_size
    inner = F.pad(torch.ones(rows - 2, columns - 2, device=images.device), (1, 1, 1, 1)).bool().flatten()
    middle = looked_at[:, inner].median(dim=1, keepdim=True).values
    return {
        "object": inner & (looked_at > middle),
        "border": (~inner).expand_as(looked_at),
        "background": inner & (looked_at <= middle),
    }
