"""A batch size baked into a model shows at another one: it fails, or it mixes the images up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tofe_export.artifacts.opened import Opened
from tofe_export.data.images import Batch
from tofe_export.documents.verification import Check
from tofe_export.errors import CheckFailedError
from tofe_export.parity.metrics import NotFinite, cosine_similarity
from tofe_export.runners.base import FEATURES, LOGITS, Runner

NAME, RUNS, FINITE = "batch", "runs", "finite"
PREVENTING = (NAME, RUNS)
"""Checks without which outputs cannot be compared at all."""
_OTHERS = (2, 4, 8, 16, 32)  # tried where those asked for fail: which one was baked in is not known


def check_batch_sizes(runner: Runner, batch: Batch, sizes: Sequence[int], cosine_min: float) -> Check:
    """Runs the first images in batches of `sizes`, and each alone must say what it says among others.

    Args:
        runner: the deployed model.
        batch: at least as many images as the largest size, or fewer, which are then repeated.
        sizes: ascending batch sizes that it was made for, 1 first if it takes it.
        cosine_min: least cosine of an image's output in two batch sizes.
    """
    images = _as_many(batch.images, sizes[-1])
    found: dict[int, torch.Tensor] = {}
    refused: list[str] = []
    for size in sizes:
        try:
            outputs = runner.run(images[:size].numpy())
        except CheckFailedError as error:
            refused.append(error.message)
            continue
        name = LOGITS if LOGITS in outputs else FEATURES
        if name not in outputs:  # which the comparison says
            why = f"It returns neither {LOGITS} nor {FEATURES}, so batch sizes were not compared."
            return Check(name=NAME, passed=None, message=why)
        values = np.atleast_1d(outputs[name])
        if len(values) != size:
            return _baked_in(f"For {size} images it returns {len(values)} {name}")
        found[size] = torch.from_numpy(values).double().reshape(size, -1)
    if refused:
        if not found and not any(_runs(runner, _as_many(images, size)) for size in _OTHERS):
            stage = runner.failing_stage(images[:1].numpy()) if isinstance(runner, Opened) else None
            where = "" if stage is None else f" It fails in stage {stage}."
            return Check.of(RUNS, [f"{refused[0]}{where}"])
        return _baked_in(f"{refused[0]} On other numbers of images it runs")
    return _compared(name, found, batch, cosine_min)


def _compared(name: str, found: dict[int, torch.Tensor], batch: Batch, cosine_min: float) -> Check:
    """Each image's output `name` in each batch size, float64 [size, n], against the widest."""
    most, widest = list(found.items())[-1]
    for size, values in found.items():
        alone, among = values.isfinite().all(dim=1), widest[:size].isfinite().all(dim=1)
        both = alone & among
        if not torch.equal(alone, among):
            in_which = size if among[~both].any() else most
            return _baked_in(f"Only in a batch of {in_which} the {name} of an image are not finite")
        cosine = cosine_similarity(values, widest[:size])[both]
        if not (cosine >= cosine_min).all():
            return _baked_in(
                f"An image gets other {name} in a batch of {size} than in one of {most} (cosine {cosine.min():.4f})"
            )
    broken = NotFinite()
    broken.add(widest[: len(batch.names)], names=batch.names)
    if broken.reference:
        # Whatever the batch size, so outputs can be compared, and that names the stage where it begins.
        return Check.of(FINITE, [f"The deployed model's {name} are not finite for image {broken.reference}."])
    return Check(name=NAME, passed=True)


def _baked_in(what: str) -> Check:
    return Check.of(NAME, [f"{what}: a batch size is baked in."])


def _as_many(images: torch.Tensor, count: int) -> torch.Tensor:
    """`count` images, repeated where there are fewer."""
    return images.repeat(-(-count // len(images)), 1, 1, 1)[:count]


def _runs(runner: Runner, images: torch.Tensor) -> bool:
    try:
        runner.run(images.numpy())
    except CheckFailedError:
        return False
    return True
