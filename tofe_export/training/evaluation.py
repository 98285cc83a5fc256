"""Accuracy of the network on held-out images, and how many tokens it keeps there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from tofe_export.data.images import Batch
from tofe_export.errors import InputError
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.model.outputs import best_class
from tofe_export.model.selector import threshold_choice
from tofe_export.model.tofe import ToFe


@dataclass(frozen=True)
class Evaluation:
    """Measured over `images` held-out images.

    Attributes:
        accuracy: top-1, 0..1.
        keep_mean, keep_std: per stage, mean and standard deviation over images of the kept share of tokens,
            on the threshold path; empty for the dense backbone.
        macs_ratio: mean over images of their own MACs, as a share of the dense backbone's.
    """

    images: int
    accuracy: float
    keep_mean: tuple[float, ...] = ()
    keep_std: tuple[float, ...] = ()
    macs_ratio: float = 1.0


@torch.no_grad()
def evaluate_dense(model: ToFe, batches: Iterable[Batch], device: torch.device) -> Evaluation:
    """The backbone alone, every token through every block."""
    model.eval()
    right = images = 0
    for batch in batches:
        logits = model.vit(batch.images.to(device))
        right += _count_right(logits, batch)
        images += len(batch.names)
    return Evaluation(images, right / max(1, images))


@torch.no_grad()
def evaluate_tofe(model: ToFe, batches: Iterable[Batch], device: torch.device) -> Evaluation:
    """The threshold path's own selection, run on the masked path so that it goes in batches; the same logits."""
    model.eval()
    right = 0
    kept: list[Tensor] = []
    for batch in batches:
        out = model.forward_masked(batch.images.to(device), threshold_choice)
        right += _count_right(out.logits, batch)
        kept.append(torch.stack([mask.sum(dim=1) for mask in out.masks], dim=1).cpu())
    counts = torch.cat(kept).double()  # [images, stages]: small, whatever the number of images
    ratios = counts / model.tokens
    macs = [tofe_macs(model, row) for row in counts.tolist()]
    return Evaluation(
        images=len(counts),
        accuracy=right / len(counts),
        keep_mean=tuple(ratios.mean(dim=0).tolist()),
        keep_std=tuple(ratios.std(dim=0, correction=0).tolist()),
        macs_ratio=sum(macs) / len(macs) / dense_macs(model.vit),
    )


def _count_right(logits: Tensor, batch: Batch) -> int:
    if batch.labels is None:
        raise InputError(
            "The held-out images have no labels.",
            "Give a folder with one subfolder of images per class.",
            code="no-labels",
        )
    return int((best_class(logits).cpu() == batch.labels).sum())
