"""What a block reads besides its tokens: where in the image they lie. Asked for once in every forward pass.

Plain ViTs add positions to the tokens before the first block, so their blocks need no more. In others, every block
turns queries and keys by a rotary table, or adds a bias to the attention between two places; tokens that were moved
then take the rows of their own places along.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Float, Int
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torch import Tensor, nn
from torch.nn import functional as F

from tofe_export.model.blocks import Step
from tofe_export.model.families import Backbone
from tofe_export.model.relative import BiasedBlock, bias_of_beit, bias_of_relpos

Places = Int[Tensor, "B n"]
"""For each patch row the index of its patch in the image."""


@dataclass(frozen=True, eq=False)  # see `FeedForward`
class Positions:
    """Those of a backbone whose blocks need none; others derive from it.

    Attributes:
        blocks: the backbone's.
    """

    blocks: nn.ModuleList | nn.Sequential

    def steps(self, indices: Iterable[int], places: Places | None = None) -> list[Step]:
        """These blocks, for tokens whose patch rows lie at `places`; None where all are in order."""
        wide = None if places is None else places.long()
        return [self._bound(index, wide) for index in indices]

    def _bound(self, index: int, places: Places | None) -> Step:
        block: Step = self.blocks[index]
        return block


@dataclass(frozen=True, eq=False)  # see `FeedForward`
class Rotary(Positions):
    """Rotary position embeddings (arXiv 2104.09864), axial or learned for each head of each block (2403.13298).

    Attributes:
        tables: sines and cosines, [N, D], or [H, N, D] per head; one for all blocks, or one for each.
    """

    tables: list[Tensor] = field(default_factory=list)

    def _bound(self, index: int, places: Places | None) -> Step:
        table = self.tables[index % len(self.tables)]
        return partial(self.blocks[index], rope=table if places is None else _rows_of(table, places))


@dataclass(frozen=True, eq=False)  # see `FeedForward`
class Relative(Positions):
    """Biases between places (arXiv 1803.02155), each block's own or shared by all.

    Attributes:
        biases: [H, L, L] per block, L = P+N rows.
        prefix: P.
    """

    biases: list[Tensor] = field(default_factory=list)
    prefix: int = 0

    def _bound(self, index: int, places: Places | None) -> Step:
        bias = self.biases[index]
        bias = bias.unsqueeze(0) if places is None else _between(bias, places, self.prefix)
        return BiasedBlock(self.blocks[index], bias)


def positions_of(vit: Backbone) -> Positions:
    """For one forward pass: while training, some rotary tables are drawn anew at each."""
    if isinstance(vit, Eva) and vit.rope is not None:
        table = vit.rope.get_embed(shape=vit.patch_embed.grid_size)
        return Rotary(vit.blocks, list(table.unbind(0)) if getattr(vit, "rope_mixed", False) else [table])
    if isinstance(vit, Beit):
        return Relative(vit.blocks, bias_of_beit(vit), int(vit.num_prefix_tokens))
    if isinstance(vit, VisionTransformerRelPos):
        return Relative(vit.blocks, bias_of_relpos(vit), int(vit.num_prefix_tokens))
    return Positions(vit.blocks)


def need_places(vit: Backbone) -> bool:
    """Whether the blocks read where their tokens lie."""
    return type(positions_of(vit)) is not Positions


def _rows_of(table: Tensor, places: Places) -> Float[Tensor, "B H n D"]:
    """The rows of a rotary table at `places`; H is 1 for [N, D]."""
    if table.ndim == 2:
        return F.embedding(places, table).unsqueeze(1)
    heads, count, width = table.shape
    rows = F.embedding(places, table.transpose(0, 1).reshape(count, heads * width))
    return rows.view(*places.shape, heads, width).transpose(1, 2)


def _between(bias: Float[Tensor, "H L L"], places: Places, prefix: int) -> Float[Tensor, "B H l l"]:
    """The biases between the prefix rows and the patch rows at `places`."""
    heads, length, _ = bias.shape
    leading = torch.arange(prefix, device=places.device).expand(places.shape[0], prefix)
    rows = torch.cat([leading, places + prefix], dim=1)
    pairs = rows.unsqueeze(2) * length + rows.unsqueeze(1)
    return F.embedding(pairs, bias.reshape(heads, length * length).transpose(0, 1)).permute(0, 3, 1, 2)
