"""Networks of transformers compute here what they compute there, and see the same images."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers import refused_as
from tofe_export.api.export import export
from tofe_export.checkpoints.checkpoint import load, load_like
from tofe_export.checkpoints.foreign import Hints
from tofe_export.checkpoints.huggingface import as_timm
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.errors import InputError
from tofe_export.model.backbones import create_backbone

transformers = pytest.importorskip("transformers", reason="transformers is in the extra dev")

SIZE = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 5,
    "layer_norm_eps": 1e-6,  # timm's; the published ViT and DeiT have 1e-12
}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def made(kind: str, **more: Any) -> Any:
    torch.manual_seed(0)
    config = {"vit": "ViTConfig", "deit": "DeiTConfig", "teacher": "DeiTConfig", "dinov2": "Dinov2Config"}[kind]
    network = {
        "vit": "ViTForImageClassification",
        "deit": "DeiTForImageClassification",
        "teacher": "DeiTForImageClassificationWithTeacher",
        "dinov2": "Dinov2ForImageClassification",
    }[kind]
    settings = SIZE if kind == "dinov2" else {**SIZE, "intermediate_size": 256}
    model = getattr(transformers, network)(getattr(transformers, config)(**{**settings, **more})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)  # as they begin, many are zero
    return model


def as_folder(model: Any, folder: Path) -> Path:
    """As `save_pretrained` leaves it, with the older names."""
    model.save_pretrained(folder)
    return folder


def as_state_dict(model: Any, folder: Path) -> Path:
    """As `torch.save` does, with the names that the modules have."""
    folder.mkdir()
    torch.save(model.state_dict(), folder / "model.pth")
    return folder / "model.pth"


LAYOUTS = pytest.mark.parametrize("saved", [as_folder, as_state_dict])


@LAYOUTS
@pytest.mark.parametrize("kind", ["vit", "teacher"])
def test_logits_are_those_of_transformers(kind: str, saved: Callable[..., Path], tmp_path: Path) -> None:
    model = made(kind)
    found = load(saved(model, tmp_path / "hf"))
    with torch.no_grad():
        torch.testing.assert_close(found.model.vit(IMAGES), model(IMAGES).logits, rtol=1e-5, atol=1e-5)
    again = load_like(found.path or Path(), found.model.config)
    assert again.weights_sha256 == found.weights_sha256


@LAYOUTS
@pytest.mark.parametrize("kind", ["vit", "deit", "teacher", "dinov2"])
def test_tokens_are_those_of_transformers(kind: str, saved: Callable[..., Path], tmp_path: Path) -> None:
    model = made(kind)
    found = load(saved(model, tmp_path / "hf"))
    body = model.base_model
    with torch.no_grad():
        ours, theirs = found.model.vit.forward_features(IMAGES), body(IMAGES).last_hidden_state
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["deit", "dinov2"])
def test_a_classifier_of_other_tokens_is_left_out(kind: str, tmp_path: Path) -> None:
    found = load(as_folder(made(kind), tmp_path / "hf"))
    assert any("classifier" in note for note in found.notes)
    with refused_as("no-head"):
        export(found, tmp_path / "m.onnx")


def test_heads_are_not_guessed_where_the_config_says_them(tmp_path: Path) -> None:
    model = made("vit", num_attention_heads=4)
    found = load(as_folder(model, tmp_path / "hf"))
    with torch.no_grad():
        torch.testing.assert_close(found.model.vit(IMAGES), model(IMAGES).logits, rtol=1e-5, atol=1e-5)
    (tmp_path / "hf" / "config.json").unlink()
    assert any("64 channels" in guess for guess in load(tmp_path / "hf").assumed)


PROCESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViTImageProcessor", {"size": {"height": 32, "width": 32}}),
    "vit, bicubic": ("ViTImageProcessor", {"size": {"height": 32, "width": 32}, "resample": 3}),
    "deit": (
        "DeiTImageProcessor",
        {"size": {"height": 37, "width": 37}, "crop_size": {"height": 32, "width": 32}, "image_mean": [0.1, 0.2, 0.3]},
    ),
    "dinov2": ("BitImageProcessor", {"size": {"shortest_edge": 37}, "crop_size": {"height": 32, "width": 32}}),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_images_are_prepared_as_by_transformers(name: str, tmp_path: Path) -> None:
    kind, settings = PROCESSORS[name]
    processor = getattr(transformers, kind)(**settings)
    folder = as_folder(made(name.partition(",")[0]), tmp_path / "hf")
    processor.save_pretrained(folder)
    found = load(folder)
    assert not any("prepared" in guess for guess in found.assumed)
    noise = np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((90, 120), Image.Resampling.BICUBIC)  # smooth: resizers round differently
    theirs = torch.as_tensor(np.asarray(processor(image, return_tensors="np")["pixel_values"][0]))
    std = torch.tensor(found.preprocessing.std).view(3, 1, 1)
    assert ((found.preprocessing(image) - theirs) * std).abs().max() * 255 < 3
    other = Preprocessing(**{**vars(found.preprocessing), "crop_mode": "border"})
    assert ((other(image) - theirs) * std).abs().max() * 255 > 30, "the test tells crop modes apart"


def test_without_a_word_on_images_it_is_assumed(tmp_path: Path) -> None:
    found = load(as_folder(made("vit"), tmp_path / "hf"))
    assert any("preprocessor_config.json" in guess for guess in found.assumed)
    assert (found.preprocessing.mean, found.preprocessing.crop_mode) == ((0.5, 0.5, 0.5), "squash")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda weights: weights.pop("vit.embeddings.cls_token"), "hugging-face-family"),
        (lambda weights: weights.pop("vit.layers.1.attention.k_proj.weight"), "weights-do-not-fit"),
        (lambda weights: weights.update({"vit.layers.0.gate.weight": torch.ones(1)}), "hugging-face-family"),
        (lambda weights: weights.update({"vit.embeddings.position_embeddings": torch.ones(4)}), "hugging-face-family"),
        (lambda weights: weights.update({"vit.layers.0.attention.k_proj.bias": torch.ones(3)}), "weights-do-not-fit"),
    ],
)
def test_what_is_missing_or_strange_is_named(change: Callable[[Any], object], code: str, tmp_path: Path) -> None:
    weights = dict(made("vit").state_dict())
    change(weights)
    torch.save(weights, tmp_path / "odd.pth")
    with refused_as(code, path=tmp_path / "odd.pth"):
        load(tmp_path / "odd.pth")


def test_another_family_is_named(tmp_path: Path) -> None:
    folder = as_folder(made("vit"), tmp_path / "hf")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "vit_mae"}))
    with refused_as("hugging-face-family") as caught:
        load(folder)
    assert "vit_mae" in caught.value.message


@pytest.mark.parametrize("resample", [1, 4, 99])
def test_a_resampling_that_is_not_known_here_is_refused(resample: int, tmp_path: Path) -> None:
    folder = as_folder(made("vit"), tmp_path / "hf")
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": 32, "resample": resample}))
    with refused_as("preprocessing"):
        load(folder)


@pytest.mark.parametrize("name", ["resample", "size", "crop_size", "image_mean", "do_center_crop"])
def test_a_processor_that_makes_no_sense_ends_in_words_at_most(name: str, tmp_path: Path) -> None:
    weights = dict(made("vit").state_dict())
    made_up = {"size": {"height": 32, "width": 32}, "crop_size": 30, "do_center_crop": True, "resample": 2}
    for value in ([], {}, "x", None, True, -1, 0, [1, 2, 3], {"height": []}):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({**made_up, name: value}))
        with contextlib.suppress(InputError):
            told = as_timm(weights, tmp_path / "model.pth")[1]
            Preprocessing.of_backbone(create_backbone(told.backbone, told.arguments), told.images)


def test_class_names_are_taken_unless_they_are_made_up(tmp_path: Path) -> None:
    names = dict(enumerate(("cat", "dog", "owl", "cow", "hen")))
    assert load(as_folder(made("vit", id2label=names), tmp_path / "named")).classes == tuple(names.values())
    assert load(as_folder(made("vit"), tmp_path / "unnamed")).classes == ()


def test_the_user_settles_what_a_file_without_config_leaves_open(tmp_path: Path) -> None:
    torch.save(made("vit").state_dict(), tmp_path / "vit.pth")
    assert [sentence.partition(" ")[0] for sentence in load(tmp_path / "vit.pth").assumed] == ["Its", "Without"]
    (left,) = load(tmp_path / "vit.pth", Hints(backbone_args={"num_heads": 2})).assumed
    assert "preprocessor_config.json" in left
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "depth": 2, "num_heads": 2, "mlp_ratio": 2}
    named = load(tmp_path / "vit.pth", Hints("vit_tiny_patch16_224", size))
    assert named.assumed == ()
    export(named, tmp_path / "m.onnx", outputs=("logits",), strict=True)


@pytest.mark.parametrize("activation", ["relu", "quick_gelu", "gelu_new"])
def test_another_activation_is_refused(activation: str, tmp_path: Path) -> None:
    with refused_as("hugging-face-activation"):
        load(as_folder(made("vit", hidden_act=activation), tmp_path / "other"))


def test_images_that_are_not_normalized_or_scaled_otherwise(tmp_path: Path) -> None:
    folder = as_folder(made("vit"), tmp_path / "vit")
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False, "size": 32}))
    assert (load(folder).preprocessing.mean, load(folder).preprocessing.std) == ((0.0,) * 3, (1.0,) * 3)
    for said in ({"do_rescale": False}, {"rescale_factor": 1 / 127.5}):
        (folder / "preprocessor_config.json").write_text(json.dumps(said))
        with refused_as("hugging-face-rescaling"):
            load(folder)
