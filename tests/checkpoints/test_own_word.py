"""What a file says itself goes before what its shapes show, and after what the user says."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch

from tests.helpers import refused_as, weightless
from tofe_export.api.export import export
from tofe_export.checkpoints.checkpoint import load
from tofe_export.checkpoints.foreign import Hints
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.model.backbones import create_backbone

VIT, DEIT = "vit_tiny_patch16_224", "deit_tiny_patch16_224"
HALF = (0.5, 0.5, 0.5)
IMAGENET = (0.485, 0.456, 0.406)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(timm.create_model(VIT, num_classes=3, img_size=32).state_dict())


def saved(path: Path, weights: dict[str, torch.Tensor], **beside: Any) -> Path:
    torch.save({"state_dict": weights, **beside}, path)
    return path


SAYS: dict[str, dict[str, Any]] = {
    "timm's training": {"arch": VIT, "args": argparse.Namespace(model="x", mean=None, crop_pct=None, interpolation="")},
    "DeiT's training": {"args": argparse.Namespace(model=VIT, input_size=32)},
    "a name of the hub": {"arch": f"timm/{VIT}"},
    "a name with a tag": {"arch": f"{VIT}.augreg_in21k"},
    "Lightning": {"hyper_parameters": {"model_name": VIT, "lr": 0.1}},
}


@pytest.mark.parametrize("beside", SAYS.values(), ids=SAYS)
def test_the_file_names_its_backbone(beside: Any, weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    found = load(saved(tmp_path / "f.pth", weights, **beside))
    assert found.model.config.backbone.partition(".")[0] == VIT
    assert found.preprocessing.mean == HALF
    assert found.assumed == ()
    assert any("own word" in note for note in found.notes)


@pytest.mark.slow
def test_without_a_word_it_is_assumed_and_said(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = saved(tmp_path / "f.pth", weights)
    found = load(path)
    assert found.model.config.backbone == DEIT
    (assumed,) = found.assumed
    assert DEIT in assumed
    with refused_as("assumed", path=path):
        export(found, tmp_path / "m.onnx", strict=True)
    assert not (tmp_path / "m.onnx").exists()
    assert export(found, tmp_path / "m.onnx").manifest.assumed == found.assumed
    named = export(load(path, Hints(backbone=DEIT)), tmp_path / "n.onnx", strict=True)
    assert named.manifest.assumed == ()


def test_the_user_goes_before_the_file(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = saved(tmp_path / "f.pth", weights, arch=VIT)
    found = load(path, Hints(backbone=DEIT))
    assert (found.model.config.backbone, found.preprocessing.mean) == (DEIT, IMAGENET)


@pytest.mark.parametrize("name", ["deit-s", "my_network", "", None, 7, "resnet50/../x"])
def test_a_name_that_timm_does_not_know_says_nothing(name: Any, weights: Any, tmp_path: Path) -> None:
    assert load(saved(tmp_path / "f.pth", weights, arch=name)).model.config.backbone == DEIT


def test_a_name_of_another_family_is_believed(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    with refused_as("not-a-plain-vit"):
        load(saved(tmp_path / "f.pth", weights, arch="resnet18"))


def test_a_larger_network_of_the_same_weights_keeps_their_size(weights: Any, tmp_path: Path) -> None:
    found = load(saved(tmp_path / "f.pth", weights, arch="vit_tiny_patch16_384"))
    assert (found.preprocessing.height, found.model.tokens) == (32, 4)


def test_how_it_was_trained_to_see(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    seen = argparse.Namespace(
        mean=[0.1], std=[0.2, 0.3, 0.4], interpolation="bilinear", crop_pct=0.8, crop_mode="border"
    )
    found = load(saved(tmp_path / "f.pth", weights, arch=VIT, args=seen)).preprocessing
    assert found == Preprocessing(32, 32, (0.1, 0.1, 0.1), (0.2, 0.3, 0.4), "bilinear", 0.8, "border")
    deit = argparse.Namespace(model=DEIT, eval_crop_ratio=0.875)
    assert load(saved(tmp_path / "f.pth", weights, args=deit)).preprocessing.crop_pct == 0.875
    for wrong in (
        {"mean": [0.1, 0.2]},
        {"std": "x"},
        {"interpolation": "lanczos"},
        {"crop_mode": "x"},
        {"crop_pct": 2.0},
    ):
        with refused_as("preprocessing"):
            load(saved(tmp_path / "f.pth", weights, arch=VIT, args=argparse.Namespace(**wrong)))


def hub(folder: Path, weights: dict[str, torch.Tensor], **config: Any) -> Path:
    """A folder as timm's `save_for_hf` leaves it."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    return folder / "model.safetensors"


def test_the_config_of_a_hub_folder(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    prepared = {"mean": [0.2, 0.3, 0.4], "std": [0.5, 0.6, 0.7], "crop_pct": 1.0, "crop_mode": "squash"}
    path = hub(tmp_path / "hub", weights, architecture=VIT, num_classes=3, pretrained_cfg=prepared)
    found = load(path.parent)
    assert found.path == path
    assert found.preprocessing == Preprocessing(32, 32, (0.2, 0.3, 0.4), (0.5, 0.6, 0.7), "bicubic", 1.0, "squash")
    assert found.assumed == ()
    other = tmp_path / "hub" / "other.safetensors"
    other.write_bytes(path.read_bytes())
    assert load(other).assumed, "it may belong to anything in the folder"


def test_arguments_in_a_config(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vit = timm.create_model(VIT, num_classes=3, img_size=32, num_heads=4, embed_dim=64, depth=2)
    config = {"architecture": VIT, "model_args": {"num_heads": 4, "embed_dim": 64, "depth": 2}}
    found = load(hub(tmp_path / "hub", dict(vit.state_dict()), **config)).model
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(found.vit.eval()(images), vit.eval()(images))


def test_a_config_that_is_no_json(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = hub(tmp_path / "hub", weights)
    (tmp_path / "hub" / "config.json").write_text("{")
    with refused_as("not-json"):
        load(path)


def test_a_file_without_a_head_has_features_alone(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    headless = {key: value for key, value in weights.items() if not key.startswith("head.")}
    found = load(saved(tmp_path / "f.pth", headless, arch=VIT))
    with refused_as("no-head"):
        export(found, tmp_path / "m.onnx")
    manifest = export(found, tmp_path / "m.onnx", outputs="features").manifest
    assert manifest.outputs == ("features",)


def test_one_network_in_another_name_is_prepared_in_another_way() -> None:
    """What a wrong guess costs: the same weights, and every pixel differs."""
    first, second = (
        Preprocessing.of_backbone(weightless(lambda n=name: create_backbone(n, {}))) for name in (VIT, DEIT)
    )
    assert first.mean != second.mean


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (["cat", "dog", "owl"], True),
        (["cat", "dog"], False),
        (["cat", "cat", "owl"], False),
        ([1, 2, 3], False),
        (None, False),
    ],
)
def test_class_names_of_a_hub_folder(names: Any, taken: bool, weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = hub(tmp_path / "hub", weights, architecture=VIT, num_classes=3, label_names=names)
    assert load(path).classes == (tuple(names) if taken else ())


@pytest.mark.parametrize("arguments", [{"checkpoint_path": "evil.pth"}, {"pretrained": True}, {"device": "meta"}])
def test_arguments_in_a_hub_folder_never_reach_timm_unchecked(
    arguments: Any, weights: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **given: asked.append(given) or create(name, **given))
    renamed = {key.replace("blocks.", "layers."): value for key, value in weights.items()}
    path = hub(tmp_path / "hub", renamed, architecture=VIT, num_classes=3, model_args=arguments)
    with refused_as("unknown-backbone-argument"):
        load(path)
    assert not any(arguments.keys() & {key for key, value in given.items() if value} for given in asked)
