"""Training runs of a few steps: what they leave on disk, that a killed one goes on exactly, what is refused."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.helpers import refused_as
from tofe_export.checkpoints import checkpoint
from tofe_export.data.image_log import ImageLog
from tofe_export.errors import InputError, MissingError, TofeError
from tofe_export.model.config import ToFeConfig
from tofe_export.training import loop, trainer
from tofe_export.training.loop import EpochMeans
from tofe_export.training.losses import LossWeights
from tofe_export.training.settings import TrainSettings
from tofe_export.training.state import load_state

CONFIG = ToFeConfig(
    "vit_tiny_patch16_224", {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 4, "num_heads": 2}
)
SETTINGS = TrainSettings(
    data="digits",
    dense_epochs=2,
    epochs=2,
    batch_size=4,
    limit_batches=2,
    limit_val=8,
    device="cpu",
    positions="sincos",
)


class KilledError(Exception):
    pass


def weights(path: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(path).model.state_dict()


def kill_after(monkeypatch: pytest.MonkeyPatch, epochs: int) -> None:
    """The process dies in the middle of the epoch that follows `epochs` whole ones."""
    run, done = loop.run_epoch, 0

    def dying(*args: Any) -> dict[str, Any]:
        nonlocal done
        entry = run(*args)  # its steps are made, its state is not saved
        done += 1
        if done > epochs:
            raise KilledError
        return entry

    monkeypatch.setattr(trainer, "run_epoch", dying)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    trainer.train(SETTINGS, CONFIG, folder)
    return folder


@pytest.mark.parametrize("epochs", [0, 1, 2, 3])
def test_a_killed_run_resumes_to_bitwise_equal_weights(
    epochs: int, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        kill_after(patch, epochs)
        with pytest.raises(KilledError):
            trainer.train(SETTINGS, CONFIG, tmp_path)
    torch.rand(3)  # the new process has other random numbers
    found = weights(trainer.train(SETTINGS, CONFIG, tmp_path, resume=True))
    expected = weights(finished / "ckpt.pth")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert (tmp_path / "metrics.jsonl").read_text() == (finished / "metrics.jsonl").read_text()


def test_what_a_run_leaves(finished: Path) -> None:
    entries = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [(entry["phase"], entry["epoch"]) for entry in entries] == [
        ("dense", 1),
        ("dense", 2),
        ("tofe", 1),
        ("tofe", 2),
    ]
    last = entries[-1]
    assert {
        "loss",
        "classification",
        "distillation",
        "approximation",
        "budget",
        "accuracy",
        "lr",
        "temperature",
    } <= set(last)
    assert len(last["keep_mean"]) == len(last["keep_std"]) == 3
    loaded = checkpoint.load(finished / "ckpt.pth")
    assert loaded.data == "digits"
    assert loaded.preprocessing.height == 16
    assert loaded.preprocessing.crop_pct == 1.0
    assert len(loaded.keep_counts()) == 3
    assert loaded.metrics["val_accuracy"] == last["val_accuracy"]
    assert not list(finished.glob("*.part"))


def test_both_phases_train_and_the_teacher_is_the_dense_phases_result(finished: Path) -> None:
    state = load_state(finished)
    assert state is not None
    changed = [key for key, value in state.teacher.items() if not torch.equal(value, state.model[f"vit.{key}"])]
    assert changed  # the student moved away from it
    fresh = trainer.setup.build_network(
        SETTINGS, trainer.setup.with_classes(CONFIG, trainer.setup.open_labelled(SETTINGS, "train")), False, None
    )
    assert any(not torch.equal(value, fresh.vit.state_dict()[key]) for key, value in state.teacher.items())
    moved = [
        key for key, value in fresh.stages.state_dict().items() if not torch.equal(value, state.model[f"stages.{key}"])
    ]
    assert any("selector" in key for key in moved)
    assert any("approximator" in key for key in moved)


def test_resume_after_the_end_writes_the_same_checkpoint(finished: Path) -> None:
    before = weights(finished / "ckpt.pth")
    (finished / "ckpt.pth").unlink()
    after = weights(trainer.train(SETTINGS, CONFIG, finished, resume=True))
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lr": 0.5}, "lr was 0.001 and is now 0.5"),
        ({"seed": 9}, "seed was 0 and is now 9"),
        ({"loss": LossWeights(budget=3.0)}, "loss was"),
    ],
)
def test_resume_with_other_settings_is_refused(finished: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        trainer.train(dataclasses.replace(SETTINGS, **change), CONFIG, finished, resume=True)
    assert caught.value.code == "resumed-with-other-settings"


def test_resume_with_another_network_is_refused(finished: Path) -> None:
    with refused_as("resumed-with-other-settings", changes=("selector was mlp and is now linear",)):
        trainer.train(SETTINGS, dataclasses.replace(CONFIG, selector="linear"), finished, resume=True)


def test_a_backbone_that_drops_patches_itself_is_refused(tmp_path: Path) -> None:
    dropping = dataclasses.replace(CONFIG, backbone_args={**CONFIG.backbone_args, "patch_drop_rate": 0.5})
    with refused_as("patch-drop"):
        trainer.train(SETTINGS, dropping, tmp_path / "run")


def test_a_run_is_not_overwritten(finished: Path, tmp_path: Path) -> None:
    with refused_as("run-exists", path=finished):
        trainer.train(SETTINGS, CONFIG, finished)
    for name in ("ckpt.pth", "metrics.jsonl"):  # somebody removed state.pt to save space
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    for resume in (True, False):
        with refused_as("run-finished", path=tmp_path):
            trainer.train(SETTINGS, CONFIG, tmp_path, resume=resume)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()


def test_damaged_state_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"PK half a file")
    with refused_as("training-state", path=tmp_path / "state.pt"):
        trainer.train(SETTINGS, CONFIG, tmp_path, resume=True)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs_done": -1},
        {"epochs_done": 10**9},
        {"epochs_done": "two"},
        {"optimizer": {}},
        {"teacher": {}},
        {"model": {"a": torch.ones(1)}},
        {"metrics": []},
        {"metrics": ["good"]},
        {"metrics": [{"phase": "dense", "loss": torch.ones(1)}]},
        {"phase": "dreaming"},
        {"config": "vit"},
        {"settings": {"lr": torch.ones(2)}},
    ],
    ids=str,
)
def test_a_state_with_a_part_that_cannot_be_right(finished: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    state = torch.load(finished / "state.pt", weights_only=True)
    assert state["phase"] == "tofe"
    torch.save({**state, **change}, tmp_path / "state.pt")
    log = (finished / "metrics.jsonl").read_bytes()
    (tmp_path / "metrics.jsonl").write_bytes(log)
    with pytest.raises(InputError, match="damaged, so the run cannot be resumed"):
        trainer.train(SETTINGS, CONFIG, tmp_path, resume=True)
    assert (tmp_path / "metrics.jsonl").read_bytes() == log


@pytest.mark.parametrize("width", [8, 16])  # at 8 the selector's MLP has another layer with two outputs
def test_fresh_selectors_keep_most_tokens(width: int) -> None:
    narrow = dataclasses.replace(CONFIG, backbone_args={**CONFIG.backbone_args, "embed_dim": width})
    for stage in trainer.setup.build_network(SETTINGS, narrow, False, None).stages:
        assert stage.selector.out.bias.tolist() == pytest.approx([math.log(9), 0])


def test_init_skips_the_dense_phase_and_starts_from_the_file(finished: Path, tmp_path: Path) -> None:
    backbone = {key: value + 1 for key, value in checkpoint.load(finished / "ckpt.pth").model.vit.state_dict().items()}
    torch.save({"model": backbone}, tmp_path / "dense.pth")
    still = dataclasses.replace(SETTINGS, epochs=1, limit_batches=1)
    trainer.train(still, CONFIG, tmp_path / "run", init=tmp_path / "dense.pth")
    state = load_state(tmp_path / "run")
    assert state is not None
    assert [entry["phase"] for entry in state.metrics] == ["tofe"]
    assert all(torch.equal(state.teacher[key], value) for key, value in backbone.items())


def test_init_with_foreign_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with refused_as("weights-do-not-fit", backbone="vit_tiny_patch16_224"):
        trainer.train(SETTINGS, CONFIG, tmp_path / "run", init=tmp_path / "other.pth")


def test_a_loss_that_is_no_number_names_its_step(tmp_path: Path) -> None:
    wild = dataclasses.replace(SETTINGS, loss=LossWeights(budget=float("nan")), dense_epochs=0)
    with refused_as("loss-not-finite", phase="tofe", epoch=1, step=1):
        trainer.train(wild, CONFIG, tmp_path)


@pytest.mark.parametrize(
    ("change", "code", "kind"),
    [
        ({"device": "cuda:99"}, "no-device", MissingError),
        ({"data": "photos"}, "no-labels", InputError),
    ],
)
def test_settings_that_cannot_be_used_here(
    change: dict[str, Any], code: str, kind: type[TofeError], tmp_path: Path
) -> None:
    with refused_as(code, kind):
        trainer.train(dataclasses.replace(SETTINGS, **change), CONFIG, tmp_path)


def test_number_of_classes_must_fit_the_data(tmp_path: Path) -> None:
    wrong = dataclasses.replace(CONFIG, backbone_args={**CONFIG.backbone_args, "num_classes": 7})
    with refused_as("num-classes", classes=10, given=7):
        trainer.train(SETTINGS, wrong, tmp_path)


def test_a_folder_with_corrupt_images_trains_on_the_rest(tmp_path: Path) -> None:
    for label, name in enumerate("ab"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(3):
            Image.new("RGB", (20, 20), (90 * label, index, 0)).save(tmp_path / "data" / name / f"{index}.png")
    (tmp_path / "data" / "a" / "bad.png").write_bytes(b"x")
    log = ImageLog()
    folder = dataclasses.replace(SETTINGS, data=str(tmp_path / "data"), dense_epochs=0, epochs=1, limit_batches=None)
    path = trainer.train(folder, CONFIG, tmp_path / "run", log=log)
    assert checkpoint.load(path).model.vit.num_classes == 2
    assert [Path(name).name for name in log.left_out] == ["bad.png"]


def test_each_step_is_reported_with_the_means_so_far(tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    watched: list[EpochMeans] = []
    settings = dataclasses.replace(SETTINGS, dense_epochs=1, epochs=1)
    trainer.train(settings, CONFIG, tmp_path, progress=lambda *step: steps.append(step), watch=watched.append)
    assert steps == [(title, step, 2) for title in ("dense backbone 1/1", "ToFe 1/1") for step in range(3)]
    dense, tofe = watched[:2], watched[2:]
    assert [len(means.kept) for means in watched] == [0, 0, 3, 3]
    assert all(means.macs_ratio is None for means in dense)
    entry = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert (tofe[-1].loss, tofe[-1].accuracy, tofe[-1].budget) == (entry["loss"], entry["accuracy"], 0.5)
    assert (tofe[-1].macs_ratio, tofe[-1].kept[0]) == (entry["train_macs_ratio"], entry["train_keep_0"])


@pytest.mark.parametrize(
    "changed",
    [
        {"weight_decay": float("nan")},
        {"backbone_lr_scale": -1.0},
        {"lr": float("nan")},
        {"dense_lr": float("inf")},
        {"seed": 2**32},
        {"batch_size": 65_537},
        {"budget": 1.5},
        {"epochs": 0},
    ],
    ids=str,
)
def test_settings_out_of_range(changed: dict[str, Any]) -> None:
    ((name, value),) = changed.items()
    with pytest.raises(InputError, match=f"`{name}` is {value}, but it must be") as caught:
        dataclasses.replace(SETTINGS, **changed)
    assert (caught.value.code, caught.value.details["name"]) == ("out-of-range", name)


@pytest.mark.parametrize("device", ["cuda:-1", "meta", "abacus"])
def test_devices_that_do_not_exist(device: str) -> None:
    with refused_as("unknown-device", name=device):
        dataclasses.replace(SETTINGS, device=device)


def test_settings_at_the_edge() -> None:
    at_most = {
        "weight_decay": 0.0,
        "backbone_lr_scale": 0.0,
        "seed": 2**32 - 1,
        "batch_size": 65_536,
        "device": "cuda:9",
    }
    assert dataclasses.replace(SETTINGS, **at_most).seed == 2**32 - 1
