"""Both operators as a network, and scores that tell orders apart."""

import torch
from torch import Tensor, nn

from tests.readers.operators import scores
from tofe_export.model.operators import scatter_rearrange, token_partition


class Both(nn.Module):
    """(tokens [B, 1+N, C], scores [B, N]) -> kept, frozen, perm, and the tokens put back."""

    def __init__(self, keep: int) -> None:
        super().__init__()
        self.keep = keep

    def forward(self, tokens: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        kept, frozen, perm = token_partition(tokens, scores, self.keep, 1)
        return kept, frozen, perm, scatter_rearrange(kept, frozen, perm, 1)


def hostile_scores() -> Tensor:
    """float32 [rows, 16]: ties, zeros of both signs, NaN, infinities."""
    return torch.from_numpy(scores())
