"""A detection head on the features of a network that freezes tokens, at two image sizes.

    python -m examples.detection [--data FOLDER] [--json FILE] [--epochs 6]

The head is a small FCOS (Tian et al., arXiv 1904.01355): for every patch an objectness, a box and a class. Its 3 by 3
convolution reads neighbors, so the features must be in spatial order. One network and one head serve images of 64 and
of 80 pixels: training takes the two in turn, and the checkpoint is exported once for each (`--img-size`). Figure:
average precision (AP) at IoU 0.5, the mean over classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_iou, generalized_box_iou_loss, nms

from examples.comparison import compare, options_of
from examples.scenes import PATCH, Scene, owner_of_patches, patch_centers

LEAST_SCORE = 0.02
OVERLAP = 0.5
"""Least IoU of a hit with the object, and of a box with a better one that makes it superfluous."""


class Head(nn.Module):
    """Features [B, N, C] to [B, N, 1 + 4 + classes]: objectness logit, distances to the sides, class logits."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, width, kernel_size=3, padding=1)
        self.act = nn.GELU()
        self.out = nn.Conv2d(width, 5 + classes, kernel_size=1)

    def forward(self, features: Tensor) -> Tensor:
        """Square images only: N is the square of the grid's side."""
        side = round(features.shape[1] ** 0.5)
        grid = features.transpose(1, 2).unflatten(2, (side, side))
        out: Tensor = self.out(self.act(self.mix(grid)))
        return out.flatten(2).transpose(1, 2)


class Detection:
    """See `examples.freezing.Task`."""

    name = "detection"
    metric = "AP at IoU 0.5"
    sizes = (64, 80)

    def head(self, width: int, classes: int) -> nn.Module:
        """See `Head`."""
        return Head(width, classes)

    def loss(self, predictions: Tensor, scenes: Sequence[Scene]) -> Tensor:
        """Binary cross-entropy of objectness; of patches on an object also GIoU of the box and cross-entropy."""
        targets = [targets_of(scene) for scene in scenes]
        centerness = torch.stack([target.centerness for target in targets])
        on_object = torch.stack([target.on_object for target in targets])
        boxes, classes = (
            torch.cat([getattr(target, name)[target.on_object] for target in targets]) for name in ("boxes", "classes")
        )
        objectness = F.binary_cross_entropy_with_logits(predictions[..., 0], centerness)
        chosen = boxes_of(predictions, len(scenes[0].pixels))[on_object]
        box = generalized_box_iou_loss(chosen, boxes, reduction="mean")
        return 4 * objectness + box + F.cross_entropy(predictions[..., 5:][on_object], classes)

    def score(self, predictions: Tensor, scenes: Sequence[Scene], classes: int) -> float:
        """Mean over classes of the average precision at IoU 0.5."""
        boxes = boxes_of(predictions, len(scenes[0].pixels))
        found = [detections_of(*pair) for pair in zip(predictions, boxes, strict=True)]
        return mean_average_precision(found, scenes, classes)


@dataclass(frozen=True)
class Targets:
    """What each patch of a scene is to predict, [N] and [N, 4]; boxes and classes mean nothing off the objects."""

    on_object: Tensor
    centerness: Tensor
    boxes: Tensor
    classes: Tensor


@dataclass(frozen=True)
class Detections:
    """Of one image, the best first: boxes [D, 4], scores [D], classes [D]."""

    boxes: Tensor
    scores: Tensor
    classes: Tensor


def targets_of(scene: Scene) -> Targets:
    """FCOS's: a patch is on the object whose box contains its center; centerness falls off towards the sides."""
    owners, centers = owner_of_patches(scene), patch_centers(len(scene.pixels))
    boxes = scene.boxes[owners]
    before, after = centers - boxes[:, :2], boxes[:, 2:] - centers
    evenness = (torch.minimum(before, after) / torch.maximum(before, after)).clamp(min=0).prod(dim=1).sqrt()
    return Targets(owners >= 0, torch.where(owners >= 0, evenness, 0.0), boxes, scene.classes[owners])


def boxes_of(predictions: Tensor, size: int) -> Tensor:
    """Boxes [B, N, 4] in pixels, from the distances of each patch's center to the four sides."""
    distances = PATCH * predictions[..., 1:5].clamp(max=3).exp()
    centers = patch_centers(size)
    return torch.cat([centers - distances[..., :2], centers + distances[..., 2:]], dim=-1)


def detections_of(predictions: Tensor, boxes: Tensor) -> Detections:
    """What one image [N, ...] shows: boxes that overlap a better one are dropped, for objects do not overlap."""
    likeliest = predictions[:, 5:].softmax(dim=1).max(dim=1)
    scores = predictions[:, 0].sigmoid() * likeliest.values
    kept = nms(boxes, scores, OVERLAP)
    kept = kept[scores[kept] >= LEAST_SCORE]
    return Detections(boxes[kept], scores[kept], likeliest.indices[kept])


def mean_average_precision(found: Sequence[Detections], scenes: Sequence[Scene], classes: int) -> float:
    """Mean over the classes that occur of the area under precision over recall, precision made monotonous."""
    scores = torch.cat([one.scores for one in found])
    labels = torch.cat([one.classes for one in found])
    hits = torch.cat([hits_of(*pair) for pair in zip(found, scenes, strict=True)])
    truths = torch.bincount(torch.cat([scene.classes for scene in scenes]), minlength=classes)
    order = scores.argsort(descending=True)
    areas = [area(hits[order][labels[order] == index], int(truths[index])) for index in range(classes) if truths[index]]
    return sum(areas) / len(areas)


def hits_of(found: Detections, scene: Scene) -> Tensor:
    """Bool [D]: whether each detection is the first, by score, on an object of its class."""
    free = torch.ones(len(scene.classes), dtype=torch.bool)
    hits = []
    for box, label in zip(found.boxes, found.classes, strict=True):
        overlap = box_iou(box[None], scene.boxes)[0] * ((scene.classes == label) & free)
        best = int(overlap.argmax())
        hits.append(bool(overlap[best] >= OVERLAP))
        free[best] &= not hits[-1]
    return torch.tensor(hits, dtype=torch.bool)


def area(hits: Tensor, truths: int) -> float:
    """Average precision: `hits` [D] are detections by falling score, `truths` the number of true objects."""
    if not len(hits):
        return 0.0
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    at_least = precision.flip(0).cummax(0).values.flip(0)
    return float(at_least[hits].sum() / truths)


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """The comparison's rows, one per method, seed and image size."""
    options = options_of(__doc__, arguments, Path("runs/detection"))
    return compare(Detection(), options, "examples.detection")


if __name__ == "__main__":
    main()
