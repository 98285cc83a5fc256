"""What reused tokens attend to, before and after their approximation, beside the dense teacher.

A token that an earlier stage froze and this one uses again comes with an estimate of what the blocks would have made of
it. In the first block of the stage its attention over all patch tokens is compared for three versions of the tokens:
*before*, with every approximator up to there omitted, so that frozen tokens come back as they were; *after*, as
deployed; and the dense teacher's tokens at the same depth, in the teacher's own block. The selection is the deployed
one in all three. Weights are means over heads, without the prefix columns, and add up to 1.
"""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from studies.paths import without_estimates
from tofe_export.model import backbones
from tofe_export.model.approximator import IdentityApproximator
from tofe_export.model.blocks import attend
from tofe_export.model.families import Backbone
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.outputs import SparseOutput
from tofe_export.model.tofe import ToFe
from tofe_export.page.token_maps import kept_in_stages, reused


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


def why_not(model: ToFe) -> str:
    """Why a network has no attention of reused tokens to show; "" if it has."""
    if len(model.stages) < 2 or model.discards:
        return "No token is ever used again after it was frozen."
    if not backbones.has_attention_weights(model.vit):
        return f"{model.config.backbone} does not show its attention weights."
    if isinstance(model.stages[0].approximator, IdentityApproximator):
        return "The identity approximator leaves frozen tokens as they are, so before and after are the same."
    return ""


@torch.inference_mode()
def reused_attention(model: ToFe, teacher: Backbone, keep: tuple[int, ...], images: Tensor) -> list[StageAttention]:
    """Attention of the reused tokens of every stage that has some.

    Args:
        model: a network of which `why_not` says nothing.
        teacher: the dense backbone to compare with.
        keep: keep counts.
        images: float32 [B, 3, H, W].
    """
    fixed, after = _run(model, FixedPath(keep), images, approximated=True)
    again = reused(kept_in_stages(model, fixed, keep)).to(images.device)
    if not again.any():
        return []
    perms = {trace.index: trace.perm for trace in fixed.stages}
    _, before = _run(model, FixedPath(keep, selection=perms), images, approximated=False)
    starts = model.config.stage_starts
    stages = [stage for stage in sorted(after) if again[:, stage].any()]
    _, dense = backbones.dense_tokens(teacher, images, [starts[stage] for stage in stages])
    attention = []
    for stage, dense_tokens in zip(stages, dense, strict=True):
        own, tokens = model.vit.blocks[starts[stage]], again[:, stage]
        weights = [_attention(own, rows[stage], model.prefix) for rows in (before, after)]
        weights.append(_attention(teacher.blocks[starts[stage]], dense_tokens, model.prefix))
        each_before, each_after, each_dense = (rows[tokens].double() for rows in weights)
        near = (F.cosine_similarity(each, each_dense, dim=1) for each in (each_before, each_after))
        attention.append(StageAttention(stage, tokens, *(_mean(rows, tokens) for rows in weights), *near))
    return attention


def _run(model: ToFe, path: FixedPath, images: Tensor, approximated: bool) -> tuple[SparseOutput, dict[int, Tensor]]:
    """The fixed path, and the tokens [B, P+N, C] that reach each stage that chooses.

    Unless `approximated`, frozen tokens come back as they went.
    """
    tokens: dict[int, Tensor] = {}

    def record(stage: Any, inputs: tuple[Any, ...]) -> None:
        tokens[stage.index] = inputs[0]

    with nullcontext() if approximated else without_estimates(model), ExitStack() as hooks:
        for stage in model.stages:
            hooks.enter_context(stage.register_forward_pre_hook(record))
        return model.forward_fixed(images, path), tokens


def _attention(block: nn.Module, rows: Tensor, prefix: int) -> Tensor:
    """[B, N, N]: of each patch token over all patch tokens, mean over heads, each row adding up to 1."""
    _, weights = attend(block, rows)
    patches = weights.mean(dim=1)[:, prefix:, prefix:]
    return patches / patches.sum(dim=2, keepdim=True)


def _mean(weights: Tensor, tokens: Tensor) -> Tensor:
    """[B, N]: the mean row of the chosen tokens per image."""
    chosen = tokens.to(weights.dtype)
    return (chosen.unsqueeze(1) @ weights).squeeze(1) / chosen.sum(dim=1, keepdim=True).clamp(min=1)
