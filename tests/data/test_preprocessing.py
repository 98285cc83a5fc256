"""Preprocessing: the numbers it computes, what it refuses, and that its digest tells two of them apart."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform, resolve_data_config

from tests.helpers import refused_as, weightless
from tofe_export.data.preprocessing import Preprocessing, timm_transform
from tofe_export.errors import InputError
from tofe_export.model.backbones import create_backbone

PLAIN = Preprocessing(8, 8, (0.5, 0.4, 0.3), (0.5, 0.25, 0.2), "bicubic", 1.0)
triples = st.tuples(*[st.floats(0.01, 2.0)] * 3)


def test_an_image_of_the_right_size_is_only_scaled_and_normalised() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    found = PLAIN(Image.fromarray(pixels))
    expected = (
        torch.from_numpy(pixels).permute(2, 0, 1).float() / 255 - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)
    ) / (torch.tensor([0.5, 0.25, 0.2]).view(3, 1, 1))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


def test_crop_pct_keeps_the_centre() -> None:
    image = Image.new("RGB", (40, 20), (0, 0, 0))
    image.paste((255, 255, 255), (10, 0, 30, 20))  # the centre square
    found = Preprocessing(10, 10, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bilinear", 0.5)(image)
    assert found.shape == (3, 10, 10)
    assert found.min() == 1.0


@given(triples, triples, st.sampled_from(["bicubic", "bilinear", "nearest"]), st.floats(0.1, 1.0))
def test_json_round_trip(mean: Any, std: Any, interpolation: str, crop_pct: float) -> None:
    one = Preprocessing(32, 48, mean, std, interpolation, crop_pct)
    again = Preprocessing.from_dict(json.loads(json.dumps(one.to_dict())))
    assert again == one
    assert again.digest() == one.digest()


@pytest.mark.parametrize(
    "change",
    [
        {"height": 16},
        {"width": 16},
        {"mean": (0.5, 0.4, 0.31)},
        {"std": (0.5, 0.25, 0.21)},
        {"interpolation": "bilinear"},
        {"crop_pct": 0.9},
        {"crop_mode": "squash"},
        {"crop_mode": "border"},
    ],
)
def test_digest_tells_every_field_apart(change: dict[str, Any]) -> None:
    assert dataclasses.replace(PLAIN, **change).digest() != PLAIN.digest()


@pytest.mark.parametrize(
    "change",
    [
        {"height": 0},
        {"width": 8.5},
        {"mean": [0.5, 0.5]},
        {"mean": "abc"},
        {"mean": 3},
        {"std": [0.5, 0.0, 0.5]},
        {"std": [0.5, float("nan"), 0.5]},
        {"interpolation": "lanczos"},
        {"crop_pct": 0.0},
        {"crop_mode": "stretch"},
    ],
    ids=str,
)
def test_values_that_make_no_sense(change: dict[str, Any]) -> None:
    (name,) = change
    with pytest.raises(InputError, match=f"{name} is") as caught:
        Preprocessing.from_dict({**PLAIN.to_dict(), **change})
    assert caught.value.code == "preprocessing"


def test_an_unknown_key() -> None:
    with refused_as("preprocessing-keys", name="colour"):
        Preprocessing.from_dict({**PLAIN.to_dict(), "colour": "red"})


def test_missing_key() -> None:
    document = PLAIN.to_dict()
    del document["std"]
    with refused_as("preprocessing-keys", name="std"):
        Preprocessing.from_dict(document)


def test_of_backbone_takes_the_models_own_image_size() -> None:
    vit = timm.create_model("test_vit", img_size=64, patch_size=8)
    found = Preprocessing.of_backbone(vit)
    assert (found.height, found.width) == (64, 64)
    assert found.mean == tuple(vit.pretrained_cfg["mean"])
    assert found.crop_pct == vit.pretrained_cfg["crop_pct"]


def test_the_short_way_equals_timms_own_transform_bit_for_bit() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    assert torch.equal(PLAIN(image), timm_transform(PLAIN, None)(image))


def test_other_modes_become_rgb() -> None:
    assert PLAIN(Image.new("L", (8, 8), 255)).shape == (3, 8, 8)


def test_of_backbone_takes_every_field_from_its_own_place() -> None:
    told = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "interpolation": "bilinear", "crop_pct": 0.7}
    vit = timm.create_model("test_vit", img_size=(64, 32), patch_size=8, pretrained_cfg_overlay=told)
    expected = Preprocessing(64, 32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear", 0.7)
    assert Preprocessing.of_backbone(vit) == expected
    told["interpolation"] = "hamming"
    vit = timm.create_model("test_vit", img_size=(64, 32), patch_size=8, pretrained_cfg_overlay=told)
    assert Preprocessing.of_backbone(vit).interpolation == "bicubic"


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("deit_tiny_patch16_224", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # ImageNet's, as DeiT was trained
        ("vit_tiny_patch16_224", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # as ViT was
        ("lvvit_t", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ],
)
def test_families_are_normalised_as_they_were_trained(name: str, mean: Any, std: Any) -> None:
    found = Preprocessing.of_backbone(weightless(lambda: create_backbone(name, {})))
    assert (found.height, found.width, found.mean, found.std, found.interpolation) == (224, 224, mean, std, "bicubic")
    assert found.crop_pct == 0.9


def test_an_image_of_the_right_size_is_cropped_where_that_is_asked() -> None:
    image = Image.new("RGB", (20, 20), (0, 0, 0))
    image.paste((255, 255, 255), (3, 3, 17, 17))  # more than the half that is kept, as resizing blurs the edge
    found = Preprocessing(20, 20, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bilinear", 0.5)(image)
    assert found.shape == (3, 20, 20)
    assert found.min() == 1.0


def test_channels_stay_red_green_blue() -> None:
    found = Preprocessing(4, 4, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))(Image.new("RGB", (4, 4), (255, 51, 0)))
    assert found[:, 0, 0].tolist() == pytest.approx([1.0, 0.2, 0.0])


def timms_own() -> list[Any]:
    """The pretrained configurations of timm's plain vision transformers, each kind once."""
    families = [name for module in ("vision_transformer", "deit") for name in timm.list_models(module=module)]
    told = [one.to_dict() for name in families for one in timm.models.get_arch_pretrained_cfgs(name).values()]
    kinds = {json.dumps(resolve_data_config(pretrained_cfg=one), sort_keys=True): one for one in told}
    return list(kinds.values())


@pytest.mark.parametrize("size", [(90, 40), (40, 90)])
def test_images_are_prepared_as_by_timm_for_every_one_of_its_networks(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*reversed(size), 3), dtype=np.uint8)
    image, kinds = Image.fromarray(pixels), timms_own()
    assert {one["crop_mode"] for one in kinds} >= {"center", "squash"}
    for told in kinds:
        vit = torch.nn.Module()
        vit.pretrained_cfg = told  # type: ignore[assignment]
        expected = create_transform(**resolve_data_config(pretrained_cfg=told))(image)
        assert torch.equal(Preprocessing.of_backbone(vit)(image), expected), told["architecture"]


@pytest.mark.parametrize(("mode", "white"), [("center", 1.0), ("squash", 0.5), ("border", 0.5)])
def test_what_each_crop_mode_keeps_of_a_wide_image(mode: Any, white: float) -> None:
    """By hand: a white square in the middle of an image twice as wide as high."""
    image = Image.new("RGB", (80, 40), (0, 0, 0))
    image.paste((255, 255, 255), (20, 0, 60, 40))
    one = Preprocessing(20, 20, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "nearest", 1.0, mode)
    found = one(image)
    assert found.mean().item() == pytest.approx(white if mode != "border" else white / 2)
    assert Preprocessing.from_dict(one.to_dict()) == one
    center = dataclasses.replace(one, crop_mode="center")
    assert (one.digest() == center.digest()) is (mode == "center")


def test_what_was_written_before_there_were_crop_modes_keeps_its_digest() -> None:
    document = PLAIN.to_dict()
    assert document.pop("crop_mode") == "center"
    assert Preprocessing.from_dict(document) == PLAIN
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    assert PLAIN.digest() == hashlib.sha256(canonical.encode()).hexdigest()
