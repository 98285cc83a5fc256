"""The two figures, on cases that can be worked out by hand; and the network at another image size."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from examples.detection import Detection, Detections, area, boxes_of, mean_average_precision, targets_of
from examples.freezing import at_size, dense_features, network
from examples.scenes import Scene, Scenes
from examples.segmentation import labels_of, mean_iou


def test_mean_iou() -> None:
    labels, predicted = torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 1, 1, 3]])
    # Class 0: 1 of 2; class 1: 1 of 3; class 3: 0 of 1; class 2 does not occur.
    assert mean_iou(predicted, labels, 5) == pytest.approx((1 / 2 + 1 / 3 + 0) / 3)
    assert mean_iou(labels, labels, 5) == 1


def test_average_precision_of_one_class() -> None:
    hits = torch.tensor([True, False, True, False])
    assert area(hits, 4) == pytest.approx((1 + 2 / 3) / 4)
    assert area(torch.tensor([False, True]), 1) == pytest.approx(1 / 2)
    assert area(torch.zeros(0, dtype=torch.bool), 2) == 0


def scene_of(boxes: list[list[float]], classes: list[int]) -> Scene:
    return Scene(np.zeros((64, 64, 3), np.uint8), torch.tensor(boxes), torch.tensor(classes))


def test_an_object_is_found_once_and_only_by_its_class() -> None:
    scene = scene_of([[0.0, 0.0, 20.0, 20.0], [30.0, 30.0, 50.0, 50.0]], [0, 1])
    boxes = torch.tensor([[0.0, 0.0, 20.0, 20.0], [0.0, 0.0, 20.0, 21.0], [30.0, 30.0, 50.0, 50.0]])
    twice = Detections(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 0, 0]))
    assert mean_average_precision([twice], [scene], 3) == pytest.approx((1 + 0) / 2)
    right = Detections(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 0, 1]))
    assert mean_average_precision([right], [scene], 3) == 1


def perfect(scene: Scene) -> Tensor:
    """What a head without errors would say."""
    target = targets_of(scene)
    size = len(scene.pixels)
    centers = boxes_of(torch.zeros(1, (size // 8) ** 2, 5), size)[0, :, :2] + 8
    sides = torch.cat([centers - target.boxes[:, :2], target.boxes[:, 2:] - centers], dim=1).clamp(min=1e-3)
    classes = 20 * torch.eye(10)[target.classes]
    objectness = torch.where(target.on_object, 10 * target.centerness, -10.0)
    return torch.cat([objectness[:, None], (sides / 8).log(), classes], dim=1)


@pytest.mark.parametrize("size", Detection.sizes)
def test_targets_and_score_have_the_same_meaning(size: int) -> None:
    task, scenes = Detection(), Scenes("val").many(range(20), size)
    predictions = torch.stack([perfect(scene) for scene in scenes])
    assert task.score(predictions, scenes, 10) == 1
    assert task.score(predictions.flip(1), scenes, 10) < 0.2, "features in another order"
    shifted = predictions + torch.tensor([0.0] * 3 + [1.5] * 2 + [0.0] * 10)
    assert task.score(shifted, scenes, 10) < 0.2, "boxes that are far too large"
    assert task.loss(predictions, scenes) < task.loss(shifted, scenes)


def test_segmentation_labels_count_the_background_as_class_0() -> None:
    scene = scene_of([[0.0, 0.0, 8.0, 8.0]], [9])
    assert labels_of([scene])[0].tolist() == [10] + [0] * 63


def test_the_twin_of_another_size_is_what_is_exported_and_trains_the_same_weights() -> None:
    model = network(64, 32, 4, "bottleneck", 0).eval()
    twin, resized, images = at_size(model, 80), copy.deepcopy(model), torch.randn(2, 3, 80, 80)
    resized.set_image_size(80, 80)
    features = dense_features(twin, images)
    torch.testing.assert_close(features, dense_features(resized, images), rtol=0, atol=1e-5)
    features.square().sum().backward()
    for name in ("pos_embed", "cls_token", "blocks.3.mlp.fc2.weight"):
        assert model.vit.get_parameter(name).grad.abs().max() > 0, name
