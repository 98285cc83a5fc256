"""One stage: select, run the kept tokens through the blocks, estimate the frozen ones, put both together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tofe_export.model import backbones
from tofe_export.model.operators import scatter_rearrange, split_by, token_partition
from tofe_export.model.selector import Selector, attention_bias


@dataclass(frozen=True)
class StageTrace:
    """One partitioned stage of the threshold or fixed path.

    Attributes:
        index: stage number; stages that keep every token have no trace.
        scores: float32 [B, n], in the order the stage found its tokens.
        perm: int32 [B, n], rank to index in that order.
        tokens: what the stage handed on, [B, L, C].
    """

    index: int
    scores: Tensor
    perm: Tensor
    tokens: Tensor


class Stage(nn.Module):
    """A stage's own parts. The blocks stay the backbone's and are handed in at each call.

    Args:
        index: stage number.
        selector: rows [B, P+N, C] -> scores [B, N].
        approximator: frozen tokens [B, F, C] -> the same; None where frozen tokens do not come back.
        prefix: P, leading tokens that are never frozen.
        cut: the head reads only the prefix rows after this stage, so its last block computes only those.
    """

    def __init__(self, index: int, selector: Selector, approximator: nn.Module | None, prefix: int, cut: bool) -> None:
        super().__init__()
        self.index, self.prefix, self.cut = index, prefix, cut
        self.selector: Selector = selector
        self.approximator = approximator

    def forward(
        self, x: Tensor, blocks: Sequence[nn.Module], keep: int | None, rearrange: bool, selection: Tensor | None
    ) -> tuple[Tensor, StageTrace | None]:
        """The sparse paths: only kept tokens run.

        Args:
            x: [B, P+n, C].
            blocks: the backbone's blocks of this stage.
            keep: keep count; None counts the scores > 0 (batch 1 only).
            rearrange: put tokens back where they were; otherwise leave them by rank.
            selection: perm int [B, n] to use instead of the selector's own.

        Returns:
            Tokens [B, L, C] and the trace; none when every token is kept, for then nothing is selected.
        """
        if keep == x.shape[1] - self.prefix:
            return self._run(blocks, x), None
        scores: Tensor = self.selector(x, self.prefix)
        count = int((scores > 0).sum()) if keep is None else keep
        if selection is None:
            kept, frozen, perm = token_partition(x, scores, count, self.prefix)
        else:
            perm = selection
            kept, frozen = split_by(x, perm, count, self.prefix)
        out = self._run(blocks, kept)
        if self.approximator is not None:
            frozen = self.approximator(frozen) if frozen.shape[1] else frozen
            out = scatter_rearrange(out, frozen, perm, self.prefix) if rearrange else torch.cat([out, frozen], dim=1)
        return out, StageTrace(self.index, scores, perm, out)

    def masked(self, x: Tensor, blocks: Sequence[nn.Module], mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """The dense path: mask * blocks(x) + (1 - mask) * approximator(x), frozen tokens invisible as keys.

        Args:
            x: [B, P+N, C].
            blocks: the backbone's blocks of this stage.
            mask: [B, N], 1.0 where the token is kept.

        Returns:
            Tokens [B, P+N, C], and the approximator's estimate of every token [B, N, C] where there is one.
        """
        out = backbones.run_blocks(blocks, x, attention_bias(mask, self.prefix))
        if self.approximator is None:
            return out, None
        estimate: Tensor = self.approximator(x[:, self.prefix :], attention_bias(1 - mask, 0))
        m = mask.unsqueeze(-1)
        return torch.cat([out[:, : self.prefix], m * out[:, self.prefix :] + (1 - m) * estimate], dim=1), estimate

    def _run(self, blocks: Sequence[nn.Module], tokens: Tensor) -> Tensor:
        if not tokens.shape[1]:
            return tokens
        if self.cut:
            return backbones.run_blocks_to_prefix(blocks, tokens, self.prefix)
        return backbones.run_blocks(blocks, tokens)
