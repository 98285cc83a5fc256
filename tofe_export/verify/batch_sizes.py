"""A batch size baked into a model shows at another one: it fails, or it mixes the images up."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tofe_export.data.images import Batch
from tofe_export.errors import CheckFailedError
from tofe_export.runners.base import FEATURES, LOGITS, Runner
from tofe_export.verify.checks import Check

NAME = "batch"


def check_batch_sizes(runner: Runner, batch: Batch, sizes: Sequence[int], cosine_min: float) -> Check:
    """Runs the first images in batches of `sizes`, and each alone must say what it says among others.

    Args:
        runner: the deployed model.
        batch: at least as many images as the largest size, or fewer, which are then repeated.
        sizes: ascending batch sizes that it was made for, 1 first if it takes it.
        cosine_min: least cosine of an image's output in two batch sizes.
    """
    images = batch.images.repeat(-(-sizes[-1] // len(batch.images)), 1, 1, 1)
    found: list[torch.Tensor] = []
    for size in sizes:
        try:
            outputs = runner.run(images[:size].contiguous().numpy())
        except CheckFailedError as error:
            return Check(NAME, False, f"{error.message} A batch size is baked into the model.")
        name = LOGITS if LOGITS in outputs else FEATURES
        if outputs[name].shape[0] != size:
            what = f"For {size} images it returns {outputs[name].shape[0]} {name}: a batch size is baked in."
            return Check(NAME, False, what)
        found.append(torch.from_numpy(outputs[name]).double().flatten(1))
    widest = found[-1]
    for size, values in zip(sizes, found, strict=True):
        cosine = torch.nn.functional.cosine_similarity(values, widest[:size], dim=1).nan_to_num(nan=-1.0).min()
        # Values that are not finite are another check's business.
        if torch.isfinite(values).all() and float(cosine) < cosine_min:
            what = (
                f"An image gets other {name} in a batch of {size} than in one of {sizes[-1]} (cosine {cosine:.4f}): "
                "a batch size is baked in."
            )
            return Check(NAME, False, what)
    return Check(NAME, True)
