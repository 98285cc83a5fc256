"""`predict` against timm's own transform and the network itself, and its token maps against each other."""

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform

import tofe_export as tofe
from tests.helpers import SMALL_CLASSES, SMALL_KEEP, refusal, sampled, save_small, small_images, small_tofe
from tofe_export.artifacts.artifact import Artifact
from tofe_export.artifacts.deployed import open_with_stages
from tofe_export.artifacts.file_kinds import Kind, recognise
from tofe_export.checkpoints.checkpoint import Checkpoint, save
from tofe_export.data.images import Batch
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.documents.base import read_document
from tofe_export.documents.prediction import Predictions
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.selection import Layout
from tofe_export.page.token_maps import maps_of, patch_grid, token_maps


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ckpt.pth, model.onnx (rearranged), elided.onnx, and eleven images of noise in two subfolders."""
    folder = tmp_path_factory.mktemp("predict")
    noise = np.random.default_rng(0)
    for index in range(11):
        path = folder / "images" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (40, 56, 3)).astype(np.uint8)).save(path)
    save_small(folder / "ckpt.pth", data="images")
    tofe.export(folder / "ckpt.pth", folder / "model.onnx", keep=SMALL_KEEP, data=folder / "images")
    elided = {"keep": SMALL_KEEP, "rearrange": "elide", "data": folder / "images"}
    tofe.export(folder / "ckpt.pth", folder / "elided.onnx", **elided)
    return folder


@pytest.mark.parametrize("name", ["model.onnx", "elided.onnx", "ckpt.pth"])
def test_probabilities_are_those_of_the_network_on_images_that_timm_prepared(folder: Path, name: str) -> None:
    predictions = tofe.predict(folder / name, folder / "images", top=3)
    assert len(predictions) == 11, "more than one batch"
    network = tofe.load(folder / "ckpt.pth").model
    transform = create_transform(
        (3, 32, 32), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bicubic", crop_pct=0.9
    )
    for one in predictions:
        with Image.open(one.image) as opened:
            image = transform(opened.convert("RGB"))
        with torch.no_grad():
            truth = network.forward_fixed(image[None], FixedPath(SMALL_KEEP)).logits[0].softmax(dim=0)
        best = truth.argsort(descending=True)[:3].tolist()
        assert [score.index for score in one.classes] == best
        assert [score.name for score in one.classes] == [SMALL_CLASSES[index] for index in best]
        assert [score.probability for score in one.classes] == pytest.approx(truth[best].tolist(), abs=1e-5)


def test_a_prediction_does_not_depend_on_the_other_images(folder: Path) -> None:
    files = sorted((folder / "images").rglob("*.png"), reverse=True)
    together = tofe.predict(folder / "model.onnx", files)
    assert [one.image for one in together] == list(map(str, files))
    for file, one in zip(files, together, strict=True):
        (alone,) = tofe.predict(folder / "model.onnx", file)
        assert [score.index for score in alone.classes] == [score.index for score in one.classes]
        for score, other in zip(alone.classes, one.classes, strict=True):
            assert score.probability == pytest.approx(other.probability, abs=1e-6)


def test_the_document_is_a_sequence_and_can_be_read_again(folder: Path, tmp_path: Path) -> None:
    predictions = tofe.predict(folder / "model.onnx", folder / "images" / "b", top=9)
    assert [*predictions] == list(predictions.rows)
    assert predictions[-1] is predictions.rows[-1]
    assert len(predictions[0].classes) == 5, "the model has no more"
    assert sum(score.probability for score in predictions[0].classes) == pytest.approx(1)
    assert (predictions.model, predictions.backend, predictions.keep) == ("model.onnx", "onnxruntime", SMALL_KEEP)
    assert predictions.images.read == 5
    assert predictions.replaced(notes=("x",)).rows == predictions.rows
    (tmp_path / "p.json").write_text(predictions.to_json())
    assert read_document(Predictions, tmp_path / "p.json", "") == predictions


def test_file_and_checkpoint_draw_the_same_token_map(folder: Path, tmp_path: Path) -> None:
    pictures = []
    for name in ("model.onnx", "elided.onnx", "ckpt.pth"):
        path = tmp_path / f"{name}.png"
        tofe.predict(folder / name, folder / "images", token_map=path)
        assert recognise(path) is Kind.TOKEN_MAP
        with Image.open(path) as picture:
            pictures.append(np.asarray(picture))
    assert pictures[0].std() > 10
    for picture in pictures[1:]:
        np.testing.assert_array_equal(picture, pictures[0])


@pytest.mark.parametrize("rearrange", ["plugin", "elide"])
@pytest.mark.parametrize(
    ("approximator", "selector", "keep"),
    sampled(
        [
            *(("bottleneck", "mlp", (8, 16, 3)), ("block", "linear", (16, 5, 5)), ("identity", "mlp", (8, 12, 3))),
            *(("discard", "mlp", (8, 5, 3)), ("discard", "mlp", (16, 5, 5)), ("fuse", "cls-attention", (8, 5, 3))),
        ],
        every=3,
    ),
)
def test_what_a_file_chose_is_what_the_network_chooses(
    tmp_path: Path, approximator: str, selector: str, keep: tuple[int, ...], rearrange: Literal["plugin", "elide"]
) -> None:
    """Against the report's maps, which are made of PyTorch's rearranged path."""
    model = small_tofe(approximator=approximator, selector=selector)
    preprocessing = Preprocessing.of_backbone(model.vit)
    checkpoint = Checkpoint(model, (), preprocessing)
    save(tmp_path / "ckpt.pth", checkpoint)
    artifact = tofe.export(tmp_path / "ckpt.pth", tmp_path / "model.onnx", keep=keep, rearrange=rearrange)
    batch = Batch(small_images(3), None, ("a", "b", "c"))
    outputs = open_with_stages(artifact, "cpu").run(batch.images.numpy())
    perms = {
        stage: torch.from_numpy(outputs[f"stage{stage}.perm"]) for stage in range(3) if f"stage{stage}.perm" in outputs
    }
    assert perms
    layout = Layout.of(approximator, 16, rearrange == "plugin")
    maps = maps_of(batch, perms, keep, layout, (4, 4), preprocessing, (0, 0, 0))
    for one, truth in zip(maps, token_maps(checkpoint, keep, [batch]), strict=True):
        np.testing.assert_array_equal(one.kept, truth.kept)
        np.testing.assert_array_equal(one.reused, truth.reused)
        np.testing.assert_array_equal(one.pixels, truth.pixels)


@pytest.mark.slow
def test_a_token_map_is_not_drawn_without_end(folder: Path, tmp_path: Path) -> None:
    files = [next((folder / "images").rglob("*.png"))] * 26
    predictions = tofe.predict(folder / "ckpt.pth", files, token_map=tmp_path / "map.png")
    assert predictions.notes == ("The token map shows the first 24 of 26 images.",)
    first = tofe.predict(folder / "ckpt.pth", files[:24], token_map=tmp_path / "24.png")
    assert not first.notes
    with Image.open(tmp_path / "24.png") as shorter, Image.open(tmp_path / "map.png") as longer:
        assert shorter.size == longer.size


@pytest.mark.parametrize(
    ("arguments", "tokens", "grid"),
    sampled(
        [
            ({"img_size": (32, 48), "patch_size": (16, 8)}, 12, (2, 6)),
            ({"img_size": (32, 48), "patch_size": 8}, 24, (4, 6)),
            ({"img_size": [48, 32], "patch_size": 8}, 24, (6, 4)),
            ({"img_size": (32, 48), "patch_size": (4, 12)}, 32, (8, 4)),
        ],
        every=4,
    ),
)
def test_the_grid_of_a_file_is_that_of_the_network(
    tmp_path: Path, arguments: dict[str, object], tokens: int, grid: tuple[int, int]
) -> None:
    model = small_tofe(**arguments)
    save(tmp_path / "ckpt.pth", Checkpoint(model, (0.5, 0.3, 0.2), Preprocessing.of_backbone(model.vit), {}))
    manifest = tofe.export(tmp_path / "ckpt.pth", tmp_path / "model.onnx").manifest
    assert manifest.tokens == tokens
    assert patch_grid(manifest) == model.vit.patch_embed.grid_size == grid


@pytest.mark.parametrize(("change", "code"), [({"tokens": 17}, "patch-grid"), ({"tokens": 64}, "not-ranked")])
def test_a_manifest_of_other_tokens_draws_nothing(
    folder: Path, tmp_path: Path, change: dict[str, int], code: str
) -> None:
    model = tofe.export(folder / "ckpt.pth", tmp_path / "model.onnx", keep=SMALL_KEEP, data=folder / "images")
    wrong = Artifact(model.path, model.manifest.replaced(**change))
    assert refusal(tofe.predict, wrong, folder / "images", token_map=tmp_path / "map.png").code == code
    assert not (tmp_path / "map.png").exists()


def test_what_has_no_token_map_is_refused(folder: Path, tmp_path: Path) -> None:
    image, picture = folder / "images" / "a" / "0.png", tmp_path / "map.png"
    network = small_tofe(selector="none")
    dense = Checkpoint(network, (), Preprocessing.of_backbone(network.vit))
    tried = {
        "token-map-of-dense": (dense, picture),
        "not-png-name": (folder / "ckpt.pth", tmp_path / "map.jpg"),
        "would-overwrite": (folder / "ckpt.pth", image),
    }
    before = image.read_bytes()
    for code, (model, path) in tried.items():
        assert refusal(tofe.predict, model, image, token_map=path).code == code
    assert image.read_bytes() == before
    assert not picture.exists()


def test_an_engine_that_hides_its_stages_is_refused_before_a_gpu_is_missed(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    engine = tofe.build(folder / "model.onnx", tmp_path / "model.engine", backend="rtx", batch=(1, 1, 2))
    error = refusal(tofe.predict, engine, folder / "images", token_map=tmp_path / "map.png")
    assert error.code == "engine-without-taps"
    if not torch.cuda.is_available():
        assert refusal(tofe.predict, engine, folder / "images").exit_code == 3


def test_a_model_that_names_no_classes_is_refused(folder: Path, tmp_path: Path) -> None:
    image = folder / "images" / "a" / "0.png"
    headless = small_tofe(num_classes=0, dense_output=True)
    checkpoint = Checkpoint(headless, (0.5, 0.3, 0.2), Preprocessing.of_backbone(headless.vit))
    assert refusal(tofe.predict, checkpoint, image).code == "no-classifier"
    save(tmp_path / "headless.pth", checkpoint)
    features = tofe.export(tmp_path / "headless.pth", tmp_path / "features.onnx", keep=SMALL_KEEP, outputs="features")
    assert refusal(tofe.predict, features, image).code == "no-logits"


def test_a_provider_is_for_onnx_runtime(folder: Path) -> None:
    assert refusal(tofe.predict, folder / "ckpt.pth", folder / "images", provider="cuda").exit_code == 2


def test_a_checkpoint_that_does_not_know_its_counts_is_exported_first(folder: Path) -> None:
    model = small_tofe()
    error = refusal(tofe.predict, Checkpoint(model, (), Preprocessing.of_backbone(model.vit)), folder / "images")
    assert error.code == "no-keep-ratios"
    assert error.next_step.endswith("export it, and predict with that.")


def test_what_was_said_of_the_checkpoint_is_handed_on(folder: Path) -> None:
    checkpoint = dataclasses.replace(tofe.load(folder / "ckpt.pth"), notes=("n",), assumed=("a",))
    predictions = tofe.predict(checkpoint, folder / "images")
    assert (predictions.notes, predictions.assumed) == (("n",), ("a",))


def test_logits_that_are_not_finite_name_the_image(folder: Path, tmp_path: Path) -> None:
    checkpoint = tofe.load(folder / "ckpt.pth")
    with torch.no_grad():
        checkpoint.model.vit.head.bias[0] = torch.nan
    error = refusal(tofe.predict, checkpoint, folder / "images")
    assert (error.code, error.exit_code) == ("logits-not-finite", 1)
    assert "0.png" in str(error)
