"""`load`: files, folders, hints, and checkpoints that are loaded already."""

from pathlib import Path

import pytest
import torch

from tests.checkpoints.published_files import HINTED, dynamicvit
from tests.helpers import refused_as, small_tofe
from tofe_export.api.inspect import inspect
from tofe_export.api.load import load
from tofe_export.artifacts.artifact import open_artifact
from tofe_export.checkpoints import checkpoint as module
from tofe_export.checkpoints.checkpoint import Checkpoint, load_like, save
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.files.reading import sha256


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run."""
    model = small_tofe()
    save(tmp_path / "run" / "ckpt.pth", Checkpoint(model, (0.5, 0.3, 0.2), Preprocessing.of_backbone(model.vit)))
    return tmp_path / "run"


def test_a_file_and_its_folder_are_one_checkpoint(run: Path) -> None:
    by_file, by_folder = load(run / "ckpt.pth"), load(str(run))
    assert by_file.path == by_folder.path == run / "ckpt.pth"
    assert by_file.file_sha256 == by_folder.file_sha256 == sha256(run / "ckpt.pth")
    assert by_file.keep_counts() == (8, 5, 3)
    assert by_folder.weights_sha256 == by_file.weights_sha256


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    with refused_as("folder-without-checkpoint", path=tmp_path):
        load(tmp_path)


def test_a_checkpoint_and_a_model_that_changed_places(run: Path) -> None:
    model = run / "model.onnx"
    model.write_bytes(b"")
    with refused_as("artifact-as-checkpoint", path=model):
        load(model)
    with refused_as("checkpoint-as-artifact", path=run / "ckpt.pth"):
        open_artifact(run / "ckpt.pth")


def test_hints_are_arguments(tmp_path: Path) -> None:
    dynamicvit(tmp_path / "d.pth")
    loaded = load(
        tmp_path / "d.pth", backbone="deit_tiny_patch16_224", backbone_args=HINTED, keep_rate=0.5, image_size=64
    )
    assert loaded.recognised == "DynamicViT"
    assert (loaded.preprocessing.height, loaded.model.tokens, loaded.keep_counts()) == (64, 64, (32, 16, 8))
    with refused_as("hints-of-own-checkpoint"):
        save(tmp_path / "own.pth", Checkpoint(small_tofe(), (), loaded.preprocessing))
        load(tmp_path / "own.pth", keep_rate=0.5)


def test_a_loaded_checkpoint_becomes_the_network_that_was_exported(run: Path) -> None:
    loaded, larger = load(run), load(run, image_size=(64, 32))
    assert load_like(loaded, loaded.model.config) is loaded
    again = load_like(loaded, larger.model.config)
    assert again.model.config == larger.model.config
    torch.testing.assert_close(again.model.state_dict(), larger.model.state_dict(), rtol=0, atol=0)
    assert loaded.model.tokens == 16, "the one that was handed in stays as it is"
    unsaved = Checkpoint(loaded.model, (0.5, 0.3, 0.2), loaded.preprocessing)
    assert load_like(unsaved, larger.model.config).preprocessing.height == 64
    assert unsaved.model.tokens == 16


def test_the_file_is_read_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    read = module.read_weights
    monkeypatch.setattr(module, "read_weights", lambda path, choice: reads.append(path) or read(path, choice))  # type: ignore[func-returns-value]
    load_like(run, small_tofe().config)
    assert reads == [run / "ckpt.pth"]


def test_a_weight_that_is_not_finite_is_named(tmp_path: Path) -> None:
    model = small_tofe()
    with torch.no_grad():
        model.vit.blocks[1].mlp.fc1.weight[0, :2] = torch.tensor([float("nan"), float("inf")])
    save(tmp_path / "nan.pth", Checkpoint(model, (), Preprocessing.of_backbone(model.vit)))
    assert any("vit.blocks.1.mlp.fc1.weight holds 2 values" in note for note in inspect(tmp_path / "nan.pth").notes)
