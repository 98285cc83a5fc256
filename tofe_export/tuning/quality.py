"""What keep counts give: which tokens matter by the network's own ranking, and what the fixed path makes of images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tofe_export.data.images import Batch
from tofe_export.errors import CheckFailedError
from tofe_export.files.names import readable
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.tofe import ToFe
from tofe_export.progress import Progress


@dataclass(frozen=True)
class Judged:
    """Images that keep counts are judged by: batches with the classes that the reference gives them.

    Attributes:
        batches: images [B, 3, H, W] with labels where there are any.
        classes: of the reference, [B] each.
        lost: see `Tuning.lost`.
        labelled: the labels are the network's own classes.
    """

    batches: tuple[Batch, ...]
    classes: tuple[Tensor, ...]
    lost: tuple[tuple[float, ...], ...]
    labelled: bool


@torch.inference_mode()
def rank_tokens_of(model: ToFe, batches: Iterable[Batch], labelled: bool) -> Judged:
    """Runs the reference on every image: the threshold path, or all tokens where scores have no threshold.

    How much a token matters is the probability with which it is kept; where scores only rank, the score itself.

    Raises:
        CheckFailedError: the scores or logits of an image are not finite.
    """
    kept, classes = [], []
    mass = torch.zeros(len(model.stages), model.tokens, dtype=torch.float64)
    for batch in batches:
        if model.has_threshold:
            singles = model.forward_threshold(batch.images)
            logits = torch.cat([single.logits for single in singles])
            traces = [trace for single in singles for trace in single.stages]
        else:
            whole = model.forward_fixed(batch.images, FixedPath(_nearly_all(model), rearranged=False))
            logits, traces = whole.logits, whole.stages
        if not (logits.isfinite().all() and all(trace.scores.isfinite().all() for trace in traces)):
            raise CheckFailedError(
                f"The scores or logits of {readable(batch.names[0])} or an image beside it are not finite.",
                "Omit that image; if others do the same, check the checkpoint's weights.",
                code="scores-not-finite",
                image=readable(batch.names[0]),
            )
        for trace in traces:
            matters = trace.scores.sigmoid() if model.has_threshold else trace.scores
            ranked = matters.double().sort(dim=1, descending=True).values.sum(dim=0)
            mass[trace.index, : len(ranked)] += ranked
        kept.append(batch)
        classes.append(logits.argmax(dim=1))
    return Judged(tuple(kept), tuple(classes), tuple(_lost(row) for row in mass), labelled)


@torch.inference_mode()
def judge(
    model: ToFe, keep: Sequence[int], images: Judged, task: str, progress: Progress
) -> tuple[float, float | None]:
    """Share of images with the class of the reference, and with the right class where that is known."""
    path, same, right, total = FixedPath(tuple(keep), rearranged=False), 0, 0, 0
    for number, (batch, classes) in enumerate(zip(images.batches, images.classes, strict=True), start=1):
        found = model.forward_fixed(batch.images, path).logits.argmax(dim=1)
        same += int((found == classes).sum())
        if images.labelled and batch.labels is not None:
            right += int((found == batch.labels).sum())
        total += len(found)
        progress(task, number, len(images.batches))
    known = images.labelled and all(batch.labels is not None for batch in images.batches)
    return same / total, right / total if known else None


def _nearly_all(model: ToFe) -> tuple[int, ...]:
    """Counts of which every stage still ranks: one token less than arrives."""
    counts: list[int] = []
    for _ in model.stages:
        counts.append(max(1, model.arriving(counts)[-1] - 1))
    return tuple(counts)


def _lost(mass: Tensor) -> tuple[float, ...]:
    """Over 0..N kept tokens, the share of `mass` [N], by rank, that is not among them."""
    total = float(mass.sum())
    beyond = total - torch.cat([torch.zeros(1, dtype=mass.dtype), mass.cumsum(0)])
    return tuple(max(0.0, float(value) / total) if total else 0.0 for value in beyond)
