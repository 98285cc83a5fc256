"""Token approximators: what happens to a frozen token across a whole stage (DESIGN section 2)."""

from __future__ import annotations

import copy

from jaxtyping import Float
from torch import Tensor, nn

DISCARD = "discard"
FUSE = "fuse"
"""Frozen tokens are added up into one more token, each by its score (EViT's fused token)."""


class BottleneckApproximator(nn.Module):
    """x + Linear(GELU(Linear(LayerNorm(x)))), C -> C/4 -> C. The last layer starts at zero: an identity."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.down = nn.Linear(dim, dim // 4)
        self.act = nn.GELU()
        self.up = nn.Linear(dim // 4, dim)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(
        self, x: Float[Tensor, "B F C"], bias: Float[Tensor, "B 1 1 F"] | None = None
    ) -> Float[Tensor, "B F C"]:
        """Frozen tokens to their estimate; `bias` hides other tokens from any attention."""
        out: Tensor = x + self.up(self.act(self.down(self.norm(x))))
        return out


class IdentityApproximator(nn.Module):
    """A frozen token comes back as it went."""

    def forward(
        self, x: Float[Tensor, "B F C"], bias: Float[Tensor, "B 1 1 F"] | None = None
    ) -> Float[Tensor, "B F C"]:
        """Frozen tokens to their estimate; `bias` hides other tokens from any attention."""
        return x


class BlockApproximator(nn.Module):
    """One full transformer block, over the frozen tokens alone, in place of the stage's many."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(
        self, x: Float[Tensor, "B F C"], bias: Float[Tensor, "B 1 1 F"] | None = None
    ) -> Float[Tensor, "B F C"]:
        """Frozen tokens to their estimate; `bias` hides other tokens from any attention."""
        out: Tensor = self.block(x) if bias is None else self.block(x, attn_mask=bias)
        return out


BLOCK = "block"
APPROXIMATORS = ("bottleneck", "identity", BLOCK, DISCARD, FUSE)


def build_approximator(name: str, dim: int, block: nn.Module) -> nn.Module:
    """The approximator called `name`; `discard` and `fuse` have none (their frozen tokens never come back).

    The `block` kind starts as a copy of `block`, the first of its stage.
    """
    if name == BLOCK:
        return BlockApproximator(copy.deepcopy(block))
    return BottleneckApproximator(dim) if name == "bottleneck" else IdentityApproximator()
