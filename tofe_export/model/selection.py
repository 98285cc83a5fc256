"""Which tokens each stage used, in spatial terms: permutations composed across stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tofe_export.model.approximator import DISCARD, FUSE


@dataclass(frozen=True)
class Layout:
    """How tokens lie between stages, as needed to translate a stage's local `perm` into spatial indices.

    Attributes:
        tokens: N, patch tokens of the image.
        rearranged: tokens were put back in spatial order after each stage; otherwise they stay permuted.
        discarded: frozen tokens never came back.
        fused: one more token came after the kept ones, made of those that did not.
    """

    tokens: int
    rearranged: bool
    discarded: bool
    fused: bool = False

    @classmethod
    def of(cls, approximator: str, tokens: int, rearranged: bool) -> Layout:
        """That of a network with this approximator."""
        return cls(tokens, rearranged, approximator in (DISCARD, FUSE), approximator == FUSE)


def kept_masks(perms: Mapping[int, Tensor], keep: Sequence[int], layout: Layout) -> list[Tensor]:
    """Which spatial tokens each stage kept.

    Args:
        perms: stage index -> perm int [B, n] over the tokens as that stage found them; a stage that keeps
            every token has none.
        keep: keep count of each stage.
        layout: see `Layout`.

    Returns:
        One bool [B, N] per stage, in spatial order.
    """
    if not perms:
        return []
    batch = next(iter(perms.values())).shape[0]
    order = torch.arange(layout.tokens).expand(batch, -1)
    nowhere = torch.full((batch, 1), layout.tokens)  # a fused token has no place in the image
    masks = []
    for stage, count in enumerate(keep):
        ranked = order.gather(1, perms[stage].long().cpu()) if stage in perms else order
        mask = torch.zeros(batch, layout.tokens + 1, dtype=torch.bool).scatter_(1, ranked[:, :count], True)
        masks.append(mask[:, : layout.tokens])
        if layout.discarded:
            order = ranked[:, :count]
            if layout.fused and stage in perms:
                order = torch.cat([order, nowhere], dim=1)
        elif not layout.rearranged:
            order = ranked
    return masks
