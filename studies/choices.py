"""Ways to choose tokens that the product does not train: given numbers of them, by their scores or at random."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.model.operators import rank_tokens
from tofe_export.model.selector import Choose, keep_scores
from tofe_export.model.tofe import ToFe


def top_choice(
    model: ToFe,
    counts: Sequence[int],
    temperature: Tensor | float = 1.0,
    noise: Tensor | float = 0.0,
    drawn: Tensor | None = None,
    returning: bool = True,
) -> Choose:
    """`counts[s]` tokens of each image in stage s: the fixed path as masks, with gradients as `gumbel_choice`.

    DynamicViT trains with one ratio per stage (arXiv 2106.02034, section 3.2); here every image keeps just that many.
    The cut between the last kept and the first frozen token of an image is its threshold, so that is where gradients
    are steepest. It moves with the scores so that the number stays what it is: what would raise all of them raises
    none, for there only their order counts. (Without that they rose together, to hundreds, and hardly learned an
    order.) Where a stage keeps all that is left there is no cut, and scores get no gradient.

    Where tokens are discarded, the mask says of a token that is gone whether it would be kept if it were there, as the
    masks of thresholds do: the masked path multiplies with what is left, and so a stage learns what later ones miss.
    Unless `returning`, tokens of any network are gone once they were frozen.
    """
    alive: list[Tensor] = []
    for_good = model.discards or not returning

    def choose(stage: int, logits: Tensor) -> Tensor:
        wide = logits.float() if drawn is None else logits.float() + noise * drawn[stage]
        scores, count, living = keep_scores(wide), counts[stage], model.tokens
        ranked = scores.detach()
        if for_good and alive:
            ranked, living = ranked.masked_fill(alive[-1] == 0, -torch.inf), min(counts[:stage])
        order = rank_tokens(ranked)
        hard = _first(order, min(count, living))
        alive.append(hard)
        if count >= living:
            return torch.ones_like(hard) if model.discards else hard
        cut = ranked.gather(1, order[:, count - 1 : count + 1].long()).mean(dim=1, keepdim=True)
        soft = ((scores - _moving(cut, scores, ranked, temperature)) / temperature).sigmoid()
        if model.discards:
            hard = torch.where(ranked.isinf(), (scores.detach() > cut).float(), hard)
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


def _first(order: Tensor, count: int) -> Float[Tensor, "B N"]:
    return torch.zeros(order.shape, device=order.device).scatter(1, order[:, :count].long(), 1.0)


def counts_for(model: ToFe, shape: str, budget: float) -> tuple[int, ...]:
    """The keep counts of this shape (see `Arm`) whose cost is nearest to `budget` of the dense MACs.

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
    wanted = budget * dense_macs(model.vit)
    counts = [1] * stages
    found = {tuple(counts): abs(_cost(model, counts) - wanted)}
    for _, stage in steps:
        counts[stage] += 1
        found[tuple(counts)] = abs(_cost(model, counts) - wanted)
    return min(found, key=found.__getitem__)


def _cost(model: ToFe, counts: Sequence[int]) -> float:
    return float(tofe_macs(model, [float(count) for count in counts]))
