"""What reused tokens attend to, before and after their approximation, beside the dense teacher.

A token that an earlier stage froze and this one uses again comes with an estimate of what the blocks would have made of
it. In the first block of the stage its attention over all patch tokens is compared for three versions of the tokens:
*before*, with every approximator up to there omitted, so that frozen tokens come back as they were; *after*, as
deployed; and the dense teacher's tokens at the same depth, in the teacher's own block. The selection is the deployed
one in all three. Weights are means over heads, without the prefix columns, and add up to 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from tofe_export.data.images import Batch
from tofe_export.model import backbones
from tofe_export.model.approximator import IdentityApproximator
from tofe_export.model.blocks import attend
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.selection import Layout, kept_masks
from tofe_export.model.tofe import ToFe, check_keep
from tofe_export.page.token_maps import reused


@dataclass(frozen=True)
class StageAttention:
    """One stage of a batch.

    Attributes:
        stage: stage number, 1 or more.
        tokens: bool [B, N], the reused tokens, in spatial order.
        before, after, dense: float [B, N], mean attention of the reused tokens per image; zeros where it has none.
        near_before, near_after: float64 [reused tokens of all images], cosine to the dense teacher's attention.
    """

    stage: int
    tokens: Tensor
    before: Tensor
    after: Tensor
    dense: Tensor
    near_before: Tensor
    near_after: Tensor


@dataclass(frozen=True)
class Similarity:
    """Mean cosine of reused tokens' attention to the dense teacher's, over many images.

    Attributes:
        stage: stage number.
        tokens: reused tokens that were looked at.
        before, after: without and with the approximator.
    """

    stage: int
    tokens: int
    before: float
    after: float


def why_not(model: ToFe) -> str:
    """Why a network has no attention of reused tokens to show; "" if it has."""
    if len(model.stages) < 2 or model.discards:
        return "No token is ever used again after it was frozen."
    if not backbones.has_attention_weights(model.vit):
        return f"{model.config.backbone} does not show its attention weights."
    if isinstance(getattr(model.stages[0], "approximator", None), IdentityApproximator):
        return "The identity approximator leaves frozen tokens as they are, so before and after are the same."
    return ""


@torch.inference_mode()
def reused_attention(
    model: ToFe, teacher: VisionTransformer, keep: Sequence[int], images: Tensor
) -> list[StageAttention]:
    """Attention of the reused tokens of every stage that has some.

    Args:
        model: a network of which `why_not` says nothing.
        teacher: the dense backbone to compare with.
        keep: keep counts.
        images: float32 [B, 3, H, W].
    """
    counts = check_keep(keep, model)
    with _entering(model) as after:
        fixed = model.forward_fixed(images, FixedPath(counts))
    perms = {trace.index: trace.perm for trace in fixed.stages}
    if not perms:
        return []
    with _entering(model) as before, _without_approximators(model):
        model.forward_fixed(images, FixedPath(counts, selection=perms))
    masks = torch.stack(kept_masks(perms, counts, Layout(model.tokens, True, False)), dim=1)
    again = reused(masks)
    starts = model.config.stage_starts
    stages = [stage for stage in sorted(after) if stage and again[:, stage].any()]
    _, tokens = backbones.dense_tokens(teacher, images, [starts[stage] for stage in stages])
    return [
        _stage(model, teacher, stage, again[:, stage], (before[stage], after[stage], dense))
        for stage, dense in zip(stages, tokens, strict=True)
    ]


def mean_similarity(
    model: ToFe, teacher: VisionTransformer, keep: Sequence[int], batches: Iterable[Batch]
) -> list[Similarity]:
    """The mean cosine over all reused tokens of `batches`, per stage."""
    near: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
    for batch in batches:
        for attention in reused_attention(model, teacher, keep, batch.images):
            before, after = near.setdefault(attention.stage, ([], []))
            before.append(attention.near_before)
            after.append(attention.near_after)
    return [
        Similarity(stage, sum(map(len, before)), float(torch.cat(before).mean()), float(torch.cat(after).mean()))
        for stage, (before, after) in sorted(near.items())
    ]


def _stage(
    model: ToFe, teacher: VisionTransformer, stage: int, tokens: Tensor, versions: tuple[Tensor, Tensor, Tensor]
) -> StageAttention:
    start = model.config.stage_starts[stage]
    blocks = model.vit.blocks[start], model.vit.blocks[start], teacher.blocks[start]
    before, after, dense = (_attention(block, rows, model.prefix) for block, rows in zip(blocks, versions, strict=True))
    near = [F.cosine_similarity(own[tokens].double(), dense[tokens].double(), dim=1) for own in (before, after)]
    means = [_mean(weights, tokens) for weights in (before, after, dense)]
    return StageAttention(stage, tokens, *means, *near)


def _attention(block: nn.Module, rows: Tensor, prefix: int) -> Tensor:
    """[B, N, N]: of each patch token over all patch tokens, mean over heads, each row adding up to 1."""
    _, weights = attend(block, rows)
    patches = weights.mean(dim=1)[:, prefix:, prefix:]
    return patches / patches.sum(dim=2, keepdim=True)


def _mean(weights: Tensor, tokens: Tensor) -> Tensor:
    """[B, N]: the mean row of the chosen tokens per image."""
    chosen = tokens.to(weights.dtype)
    return (chosen.unsqueeze(1) @ weights).squeeze(1) / chosen.sum(dim=1, keepdim=True).clamp(min=1)


@contextmanager
def _entering(model: ToFe) -> Iterator[dict[int, Tensor]]:
    """Stage -> the tokens [B, P+N, C] that reach it, of every stage that chooses while the model runs."""
    tokens: dict[int, Tensor] = {}

    def record(stage: Any, inputs: tuple[Any, ...]) -> None:
        tokens[stage.index] = inputs[0]

    handles = [stage.register_forward_pre_hook(record) for stage in model.stages]
    try:
        yield tokens
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _without_approximators(model: ToFe) -> Iterator[None]:
    """Within it, frozen tokens come back as they went."""
    parts = [stage.approximator for stage in model.stages if isinstance(stage.approximator, nn.Module)]
    handles = [part.register_forward_hook(lambda module, inputs, output: inputs[0]) for part in parts]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
