"""Multiply-accumulates of what published methods add: LV-ViT, discarding, CLS attention, fused tokens, features."""

from typing import Any

import pytest
import torch

from tests.helpers import small_images, small_tofe
from tofe_export.model import blocks
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.flops import count_macs, dense_macs, tofe_macs
from tofe_export.model.tofe import ToFe

# A thin stem, or it would be nearly all that LV-ViT costs here and hide the rest within the tolerance.
BACKBONES: dict[str, dict[str, Any]] = {
    "vit": {},
    "distilled": {"backbone": "deit_tiny_distilled_patch16_224"},
    "lvvit": {"backbone": "lvvit_s", "stem": 2},
}
DISCARDING: dict[str, dict[str, Any]] = {
    "dynamicvit": {"approximator": "discard"},
    "evit": {"selector": "cls-attention", "approximator": "discard"},
    "evit fused": {"selector": "cls-attention", "approximator": "fuse"},
}
STAGES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((1, 2, 3), (9, 7, 2)),
    ((1, 2, 3), (16, 7, 7)),  # the first and the last stage choose nothing
    ((0, 2), (12, 4)),
    ((3,), (5,)),
]
# PyTorch's counter knows no product of a matrix and a vector, which is how a learned selector ends.
SCORES = 1e-3
IDS = ["three stages", "one that chooses", "from the start", "the last block"]


def ready(**arguments: Any) -> ToFe:
    # PyTorch 2.11's counter does not know the CPU's fused attention, and stumbles over parameters outside autograd.
    model = small_tofe(**arguments).requires_grad_(False)
    blocks.explicit_attention(model)
    return model


def counted(model: ToFe, keep: tuple[int, ...], features: bool = False) -> float:
    return count_macs(
        lambda: model.forward_fixed(small_images(1), FixedPath(keep, rearranged=False, features=features))
    )


@pytest.mark.parametrize("method", DISCARDING)
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize(("starts", "keep"), STAGES, ids=IDS)
def test_methods_that_discard_tokens(
    backbone: str, method: str, starts: tuple[int, ...], keep: tuple[int, ...]
) -> None:
    model = ready(**BACKBONES[backbone], **DISCARDING[method], stage_starts=starts)
    found = tofe_macs(model, [float(count) for count in keep])
    learned = DISCARDING[method].get("selector") is None
    assert found == pytest.approx(counted(model, keep), rel=SCORES if learned else 0)
    assert found < dense_macs(model.vit)


@pytest.mark.parametrize("approximator", ["bottleneck", "identity", "block"])
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_features_and_logits(backbone: str, dense: bool, approximator: str) -> None:
    model = ready(**BACKBONES[backbone], approximator=approximator, dense_output=dense)
    for keep in ((9, 7, 2), (16, 3, 16)):
        counts = [float(count) for count in keep]
        for features in (False, True):
            found = tofe_macs(model, counts, features)
            assert found == pytest.approx(counted(model, keep, features), rel=SCORES)
        assert tofe_macs(model, counts) == tofe_macs(model, counts, dense), "what the network was made for"


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_dense_backbone(backbone: str) -> None:
    model = ready(**BACKBONES[backbone], selector="none")
    expected = count_macs(lambda: model.vit(small_images(1)))
    assert dense_macs(model.vit) == expected
    assert tofe_macs(model, []) == dense_macs(model.vit)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_macs_are_differentiable_where_tokens_are_discarded(backbone: str) -> None:
    model = ready(**BACKBONES[backbone], approximator="discard")
    counts = [torch.tensor(count, requires_grad=True) for count in (9.0, 7.0, 2.0)]
    total = tofe_macs(model, counts)
    assert total.item() == tofe_macs(model, [9.0, 7.0, 2.0])
    total.backward()
    assert all(count.grad is not None and count.grad > 0 for count in counts)
