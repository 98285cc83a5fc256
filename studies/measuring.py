"""An arm on held-out images: which it gets right, what it costs, and what fixed counts or no return would change."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from studies.choices import random_choice, top_choice
from studies.experiments import FUSED, LEARNED, RANDOM, Arm
from studies.paths import Fused, without_estimates
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.model.outputs import MaskedOutput
from tofe_export.model.selector import Choose, threshold_choice
from tofe_export.model.tofe import ToFe

QUANTILES = (0.5, 0.75, 0.9)
_BATCH = 500
_TABLES = 20_000  # numbers of tokens whose cost is remembered


@dataclass(frozen=True)
class Answers:
    """What a network says of some images.

    Attributes:
        right: bool [n].
        kept: per stage, share of the tokens that ran, mean over the images.
        spread: standard deviation of it.
        macs: mean over the images, as a share of the dense backbone's.
        counts: int [n, S], tokens that ran.
    """

    right: NDArray[np.bool_]
    kept: list[float]
    spread: list[float]
    macs: float
    counts: NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        """Top-1, 0..1."""
        return float(self.right.mean())

    def recorded(self) -> dict[str, Any]:
        """For results: of single images only which are right."""
        return {
            "accuracy": self.accuracy,
            "macs_ratio": self.macs,
            "keep_mean": self.kept,
            "keep_std": self.spread,
            "images": len(self.right),
            "right": packed(self.right),
        }


Forward = Callable[[Tensor], MaskedOutput]


@torch.no_grad()
def answers(model: ToFe, forward: Forward, images: Tensor, labels: Tensor) -> Answers:
    """Of images float32 [n, 3, H, W] with labels int64 [n], on their device."""
    model.eval()
    right, counts = [], []
    for part, wanted in _parts(images, labels):
        out = forward(part)
        right.append((out.logits.argmax(dim=1) == wanted).cpu())
        counts.append(torch.stack([mask.sum(dim=1) for mask in out.masks], dim=1).long().cpu())
    ran = torch.cat(counts)
    whole = dense_macs(model.vit)

    @lru_cache(_TABLES)
    def cost(row: tuple[int, ...]) -> float:
        return float(tofe_macs(model, [float(count) for count in row])) / whole

    shares = ran.double() / model.tokens
    macs = float(np.mean([cost(tuple(row)) for row in ran.tolist()]))
    return Answers(torch.cat(right).numpy(), shares.mean(dim=0).tolist(), shares.std(dim=0).tolist(), macs, ran.numpy())


@torch.no_grad()
def dense_answers(model: ToFe, images: Tensor, labels: Tensor) -> NDArray[np.bool_]:
    """bool [n]: which the backbone alone gets right."""
    model.eval()
    found = [model.vit(part).argmax(dim=1) == wanted for part, wanted in _parts(images, labels)]
    return torch.cat(found).cpu().numpy()


def own_forward(model: ToFe, arm: Arm, counts: Sequence[int]) -> Forward:
    """The path that the arm was trained for."""
    if arm.selection == LEARNED:
        return masked(model, lambda: threshold_choice)
    if arm.selection == FUSED:
        fused = Fused(model, counts)
        return lambda images: fused(images, torch.tensor(1.0), torch.tensor(0.0), None)
    if arm.selection == RANDOM:
        return masked(model, lambda: random_choice(counts))
    return masked(model, lambda: top_choice(model, counts))


def masked(model: ToFe, choice: Callable[[], Choose]) -> Forward:
    """The masked path with a new `Choose` for every batch, for some remember what an image has lost."""
    return lambda images: model.forward_masked(images, choice())


def variants(model: ToFe, learned: Answers, images: Tensor, labels: Tensor) -> dict[str, Any]:
    """A network with learned thresholds in other ways of use.

    * `fixed-0.5` and so on: counts at quantiles of what *training* images keep;
    * `returning`: the counts of `fixed-0.5`, but none larger than an earlier one. With these alone can be compared:
    * `no-return`: as many tokens, but what was frozen once stays frozen;
    * `no-estimate`: as many tokens, but frozen ones come back as they went.

    Args:
        model: the network.
        learned: of training images, by its thresholds.
        images, labels: held-out ones.
    """

    def measured(counts: list[int], returning: bool = True) -> dict[str, Any]:
        choice = partial(top_choice, model, counts, returning=returning)
        return {**answers(model, masked(model, choice), images, labels).recorded(), "counts": counts}

    counts = {
        quantile: [max(1, int(count)) for count in np.quantile(learned.counts, quantile, axis=0, method="higher")]
        for quantile in QUANTILES
    }
    falling = {quantile: list(accumulate(those, min)) for quantile, those in counts.items()}
    found = {
        f"fixed-{quantile:g}": measured(falling[quantile] if model.discards else counts[quantile])
        for quantile in QUANTILES
    }
    if not model.discards:
        found["returning"] = measured(falling[0.5])
        found["no-return"] = measured(falling[0.5], returning=False)
        with without_estimates(model) as estimated:
            if estimated:
                found["no-estimate"] = measured(falling[0.5])
    return found


def packed(right: NDArray[np.bool_]) -> str:
    """A bit an image, base64."""
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def unpacked(text: str, images: int) -> NDArray[np.bool_]:
    """The inverse of `packed`."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8))[:images].astype(bool)


def _parts(images: Tensor, labels: Tensor) -> zip[tuple[Tensor, Tensor]]:
    return zip(torch.split(images, _BATCH), torch.split(labels, _BATCH), strict=True)
