"""Ways to choose tokens that the product does not train: by a given number (highest scores, or random), and EViT's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.model.operators import rank_tokens
from tofe_export.model.outputs import MaskedOutput
from tofe_export.model.selector import Choose, keep_scores, threshold_choice
from tofe_export.model.tofe import ToFe


def top_choice(
    model: ToFe,
    counts: Sequence[int],
    temperature: Tensor | float = 1.0,
    noise: Tensor | float = 0.0,
    drawn: Tensor | None = None,
) -> Choose:
    """`counts[s]` tokens of each image in stage s: the fixed path as masks, with gradients as `gumbel_choice`.

    DynamicViT trains with one ratio per stage (arXiv 2106.02034, section 3.2); here every image keeps just that many.
    """
    alive: list[Tensor] = []

    def choose(stage: int, logits: Tensor) -> Tensor:
        wide = logits.float() if drawn is None else logits.float() + noise * drawn[stage]
        scores = keep_scores(wide).detach()
        if model.discards and alive:
            scores = scores.masked_fill(alive[-1] == 0, -torch.inf)
        hard = _first(rank_tokens(scores), counts[stage])
        alive.append(hard)
        soft = F.softmax(wide / temperature, dim=-1)[..., 0]
        return hard + (soft - soft.detach())

    return choose


def random_choice(counts: Sequence[int]) -> Choose:
    """`counts[s]` tokens of each image at random, by the global generator."""
    return lambda stage, logits: _first(rank_tokens(torch.rand_like(logits[..., 0].float())), counts[stage])


def without_return() -> Choose:
    """The threshold path's rule, but what was frozen once stays frozen."""
    alive: list[Tensor] = []

    def choose(stage: int, logits: Tensor) -> Tensor:
        mask = threshold_choice(stage, logits)
        alive.append(mask * alive[-1] if alive else mask)
        return alive[-1]

    return choose


def _first(order: Tensor, count: int) -> Float[Tensor, "B N"]:
    return torch.zeros(order.shape, device=order.device).scatter(1, order[:, :count].long(), 1.0)


class Counted(nn.Module):
    """The masked path with given counts, called as `training.forward.MaskedForward` is."""

    def __init__(self, model: ToFe, counts: Sequence[int], at_random: bool) -> None:
        super().__init__()
        self.model, self.counts, self.at_random = model, tuple(counts), at_random

    def forward(self, images: Tensor, temperature: Tensor, noise: Tensor, drawn: Tensor | None) -> MaskedOutput:
        """See `MaskedForward`."""
        if self.at_random:
            return self.model.forward_masked(images, random_choice(self.counts))
        return self.model.forward_masked(images, top_choice(self.model, self.counts, temperature, noise, drawn))


class Fused(nn.Module):
    """The fixed path of a network that chooses by attention, called and answering as the masked path does.

    EViT is trained so (arXiv 2202.07800, section 3): the selection itself has no gradient. Its masks say how many
    tokens ran, not which.
    """

    def __init__(self, model: ToFe, counts: Sequence[int]) -> None:
        super().__init__()
        self.model, self.counts = model, tuple(counts)

    def forward(self, images: Tensor, temperature: Tensor, noise: Tensor, drawn: Tensor | None) -> MaskedOutput:
        """See `MaskedForward`."""
        out = self.model.forward_fixed(images, FixedPath(self.counts))
        shape = (len(images), self.model.tokens)
        place = torch.arange(self.model.tokens, device=images.device).expand(shape)
        masks = [(place < count).float() for count in self.counts]
        return MaskedOutput(out.logits, masks, [], [torch.zeros(shape, device=images.device) for _ in masks])


def counts_within(model: ToFe, shape: str, budget: float) -> tuple[int, ...]:
    """The largest keep counts of this shape (see `Arm`) that cost at most `budget` of the dense MACs."""
    tokens, stages = model.tokens, len(model.stages)
    if shape == "all":
        return (tokens,) * stages
    if shape == "half":
        return (tokens // 2, *(tokens,) * (stages - 1))
    powers = [1] * stages if shape == "uniform" else range(1, stages + 1)
    found: tuple[int, ...] = (1,) * stages
    for step in range(1, 1001):
        counts = tuple(max(1, round(tokens * (step / 1000) ** power)) for power in powers)
        if tofe_macs(model, [float(count) for count in counts]) / dense_macs(model.vit) <= budget:
            found = counts
    return found
