"""One stage: score the tokens, run the kept ones through the blocks, estimate the frozen ones.

Putting both together again is the network's business (`tofe.py`), for it knows who reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from tofe_export.model.blocks import FeedForward, Step, attend, run_steps
from tofe_export.model.operators import split_by, token_partition
from tofe_export.model.selector import Selector, attention_bias

Steps = Callable[[Tensor | None], list[Step]]
"""A stage's blocks for tokens that lie at these places; see `Positions.steps`."""


class Stage(nn.Module):
    """A stage's own parts. The blocks stay the backbone's and are handed in at each call.

    Args:
        index: stage number.
        selector: rows [B, P+N, C] -> scores [B, N]; None takes the attention of the CLS row in the first block.
        approximator: frozen tokens [B, F, C] -> the same; None leaves them as they are.
        prefix: P, leading tokens that are never frozen.
        fuse: add the frozen tokens up into one that runs with the kept ones.
    """

    def __init__(
        self, index: int, selector: Selector | None, approximator: nn.Module | None, prefix: int, fuse: bool = False
    ) -> None:
        super().__init__()
        self.index, self.prefix, self.fuse = index, prefix, fuse
        self.selector = selector
        self.approximator = approximator

    def forward(
        self,
        x: Tensor,
        places: Tensor | None,
        steps: Steps,
        keep: int | None,
        selection: Tensor | None,
        cut: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The sparse paths: only kept tokens run.

        Args:
            x: [B, P+n, C].
            places: int [B, n], where in the image its patch tokens lie; None where all are in order.
            steps: the backbone's blocks of this stage.
            keep: keep count below n; None counts the scores > 0 (batch 1 only).
            selection: perm int [B, n] to use instead of the selector's own.
            cut: only the prefix rows are read afterwards, so the last block computes only those.

        Returns:
            kept [B, P+k, C] after the blocks, and after them the fused token where there is one; frozen [B, N-k, C],
            estimated, in order of rank; scores and perm as in `StageTrace`; and the places of both by rank [B, n].
        """
        x, scores, later = self._score(x, steps)
        count = int((scores > 0).sum()) if keep is None else keep
        if selection is None:
            kept, frozen, perm = token_partition(x, scores, count, self.prefix)
        else:
            perm = selection
            kept, frozen = split_by(x, perm, count, self.prefix)
        if self.fuse:
            weights = scores.gather(1, perm[:, count:].long()).to(frozen.dtype)
            kept = torch.cat([kept, weights.unsqueeze(1) @ frozen], dim=1)
        ranked = perm if places is None else places.gather(1, perm.long())
        kept = self.run(later(ranked[:, :count]), kept, cut)
        if self.approximator is not None and not cut and frozen.shape[1]:
            frozen = self.approximator(frozen)
        return kept, frozen, scores, perm, ranked

    def masked(self, x: Tensor, steps: Steps, mask: Tensor, cut: bool) -> tuple[Tensor, Tensor | None]:
        """The dense path: mask * blocks(x) + (1 - mask) * approximator(x), frozen tokens invisible as keys.

        `mask` [B, N] is 1.0 where a token of `x` [B, P+N, C] is kept; for `cut` see `forward`.

        Returns:
            Tokens [B, P+N, C], cut [B, P, C]; and the approximator's estimate of every token [B, N, C] where there is
            one. There is none where the tokens are cut: nobody would read it.
        """
        out = run_steps(steps(None), x, attention_bias(mask, self.prefix), self.prefix if cut else None)
        if self.approximator is None:
            return out, None
        estimate: Tensor = self.approximator(x[:, self.prefix :], attention_bias(1 - mask, 0))
        m = mask.unsqueeze(-1)
        return torch.cat([out[:, : self.prefix], m * out[:, self.prefix :] + (1 - m) * estimate], dim=1), estimate

    def _score(self, x: Tensor, steps: Steps) -> tuple[Tensor, Tensor, Steps]:
        """The tokens to choose from, their scores [B, n], and what is left to do with the chosen ones."""
        if self.selector is not None:
            return x, self.selector(x, self.prefix), steps
        # EViT chooses in the middle of a block: after its attention, which gives the scores, and before its MLP.
        first, *rest = steps(None)
        assert isinstance(first, Block)
        x, weights = attend(first, x)
        return x, weights[:, :, 0, self.prefix :].float().mean(dim=1), lambda places: [FeedForward(first), *rest]

    def run(self, steps: Sequence[Step], tokens: Tensor, cut: bool) -> Tensor:
        """All tokens through `steps`; see `forward`."""
        if not tokens.shape[1]:
            return tokens
        return run_steps(steps, tokens, rows=self.prefix if cut else None)
