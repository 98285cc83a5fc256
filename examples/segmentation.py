"""A linear segmentation head on the features of a network that freezes tokens.

    python -m examples.segmentation [--data FOLDER] [--json FILE] [--epochs 6]

The head is one linear layer: it names the class of every 8 by 8 patch, or the background. A patch belongs to the
object whose box contains its center (`examples/scenes.py`). Figure: mean intersection over union (IoU) of patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from examples.comparison import compare, options_of
from examples.scenes import Scene, owner_of_patches

BACKGROUND_WEIGHT = 0.3


class Segmentation:
    """See `examples.freezing.Task`. Class 0 is the background, object classes follow."""

    name = "segmentation"
    metric = "mean IoU"
    sizes = (64,)

    def head(self, width: int, classes: int) -> nn.Module:
        """Features [B, N, C] to logits [B, N, 1 + classes]."""
        return nn.Linear(width, 1 + classes)

    def loss(self, predictions: Tensor, scenes: Sequence[Scene]) -> Tensor:
        """Mean cross-entropy of patches, background counted less: most patches are background."""
        weights = torch.ones(predictions.shape[2])
        weights[0] = BACKGROUND_WEIGHT
        return F.cross_entropy(predictions.flatten(0, 1), labels_of(scenes).flatten(), weights)

    def score(self, predictions: Tensor, scenes: Sequence[Scene], classes: int) -> float:
        """Mean IoU of the most probable classes."""
        return mean_iou(predictions.argmax(dim=2), labels_of(scenes), 1 + classes)


def labels_of(scenes: Sequence[Scene]) -> Tensor:
    """Int64 [B, N]: 0 for the background, 1 + class elsewhere."""
    owners = [owner_of_patches(scene) for scene in scenes]
    return torch.stack(
        [torch.where(owner < 0, 0, 1 + scene.classes[owner]) for owner, scene in zip(owners, scenes, strict=True)]
    )


def mean_iou(predicted: Tensor, labels: Tensor, classes: int) -> float:
    """Mean over the classes that occur: patches where predicted and true, over patches where either."""
    both = torch.bincount(labels[predicted == labels], minlength=classes)
    either = torch.bincount(labels.flatten(), minlength=classes) + torch.bincount(
        predicted.flatten(), minlength=classes
    )
    either = either - both
    present = either > 0
    return float((both[present] / either[present]).mean())


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """The comparison's rows, one per method, seed and image size."""
    options = options_of(__doc__, arguments, Path("runs/segmentation"))
    return compare(Segmentation(), options, "examples.segmentation")


if __name__ == "__main__":
    main()
