"""Ways to choose tokens that the product does not train: by a given number (highest scores, or random), and EViT's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

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
    The cut between the last kept and the first frozen token of an image is its threshold, so that is where gradients
    are steepest. It moves with the scores so that the number stays what it is: what would raise all of them raises
    none, for there only their order counts. (Without that they rose together, to hundreds, and hardly learned an
    order.) Where a stage keeps all that is left there is no cut, and scores get no gradient.
    """
    alive: list[Tensor] = []

    def choose(stage: int, logits: Tensor) -> Tensor:
        wide = logits.float() if drawn is None else logits.float() + noise * drawn[stage]
        scores, count, living = keep_scores(wide), counts[stage], model.tokens
        ranked = scores.detach()
        if model.discards and alive:
            ranked, living = ranked.masked_fill(alive[-1] == 0, -torch.inf), min(counts[:stage])
        order = rank_tokens(ranked)
        hard = _first(order, count)
        alive.append(hard)
        if count >= living:
            return hard
        cut = ranked.gather(1, order[:, count - 1 : count + 1].long()).mean(dim=1, keepdim=True)
        soft = ((scores - _moving(cut, scores, ranked, temperature)) / temperature).sigmoid()
        return hard + (soft - soft.detach())

    return choose


def _moving(cut: Tensor, scores: Tensor, ranked: Tensor, temperature: Tensor | float) -> Tensor:
    """`cut` [B, 1] with the gradient that leaves the sum of sigmoid((ranked - cut) / temperature) as it is."""
    soft = ((ranked - cut) / temperature).sigmoid()
    slopes = soft * (1 - soft)  # 0 for what was discarded before
    shares = slopes / slopes.sum(dim=1, keepdim=True).clamp(min=1e-12)
    return cut + (shares * (scores - scores.detach())).sum(dim=1, keepdim=True)


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
    """The largest keep counts of this shape (see `Arm`) that cost at most `budget` of the dense MACs.

    From one token a stage they grow token by token: that stage is next which is farthest behind its proportion.
    """
    tokens, stages = model.tokens, len(model.stages)
    if shape == "all":
        return (tokens,) * stages
    if shape == "half":
        return (tokens // 2, *(tokens,) * (stages - 1))
    powers = [1] * stages if shape == "uniform" else range(1, stages + 1)
    # A stage has half a token more than `count` where r^power is (count + 0.5) / tokens.
    steps = sorted(
        (((count + 0.5) / tokens) ** (1 / power), stage)
        for stage, power in enumerate(powers)
        for count in range(1, tokens)
    )
    counts, affordable = [1] * stages, budget * dense_macs(model.vit)
    found = tuple(counts)
    for _, stage in steps:
        counts[stage] += 1
        if tofe_macs(model, [float(count) for count in counts]) <= affordable:
            found = tuple(counts)
    return found
