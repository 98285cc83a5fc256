"""Training runs of a few steps: what they leave on disk, that a killed one goes on exactly, what is refused."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.helpers import refused_as
from tofe_export.checkpoints import checkpoint
from tofe_export.data.image_log import ImageLog
from tofe_export.documents.training_recipe import TrainingRecipe
from tofe_export.errors import InputError, MissingError, TofeError
from tofe_export.training import losses, setup, trainer
from tofe_export.training.loop import EpochMeans
from tofe_export.training.phase import Phase
from tofe_export.training.recipe import config_of
from tofe_export.training.run import RunOptions
from tofe_export.training.state import load_state

NETWORK = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 4, "num_heads": 2}
RECIPE = TrainingRecipe(name="test").changed(
    network={"backbone": "vit_tiny_patch16_224", "backbone_args": NETWORK, "positions": "sincos"},
    dense={"epochs": 2},
    tofe={"epochs": 2},
    run={"batch_size": 4, "limit_batches": 2, "limit_val": 8},
)
OPTIONS = RunOptions("digits", device="cpu")
SHORT = RECIPE.changed(dense={"epochs": 1}, tofe={"epochs": 1})


class KilledError(Exception):
    pass


def weights(path: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(path).model.state_dict()


def kill_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """The process dies in the step that follows `steps` whole ones, counted over both phases."""
    make, done = Phase.step, 0

    def dying(*args: Any) -> dict[str, float]:
        nonlocal done
        values = make(*args)  # made, but its state is not saved
        done += 1
        if done > steps:
            raise KilledError
        return values

    monkeypatch.setattr(Phase, "step", dying)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    trainer.train(RECIPE, OPTIONS, folder)
    return folder


@pytest.mark.parametrize("minutes", [0.0, 60.0], ids=["saved after each step", "saved after each epoch"])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 5, 7])
def test_a_killed_run_resumes_to_bitwise_equal_weights(
    steps: int, minutes: float, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = dataclasses.replace(OPTIONS, save_minutes=minutes)
    with monkeypatch.context() as patch:
        kill_after(patch, steps)
        with pytest.raises(KilledError):
            trainer.train(RECIPE, options, tmp_path)
    torch.rand(3)  # the new process has other random numbers
    made = 0
    with monkeypatch.context() as patch:
        make = Phase.step

        def counted(*args: Any) -> dict[str, float]:
            nonlocal made
            made += 1
            return make(*args)

        patch.setattr(Phase, "step", counted)
        found = weights(trainer.train(RECIPE, options, tmp_path, resume=True).path)
    assert made == 8 - (steps if minutes == 0 else steps // 2 * 2)
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
    assert state.dense_accuracy is not None
    changed = [key for key, value in state.teacher.items() if not torch.equal(value, state.model[f"vit.{key}"])]
    assert changed  # the student moved away from it
    source, _ = setup.open_labelled("digits", RECIPE.run.seed)
    fresh, classifies = setup.build_network(RECIPE, setup.with_classes(config_of(RECIPE), source), False, None)
    assert not classifies
    assert any(not torch.equal(value, fresh.vit.state_dict()[key]) for key, value in state.teacher.items())
    moved = [
        key for key, value in fresh.stages.state_dict().items() if not torch.equal(value, state.model[f"stages.{key}"])
    ]
    assert any("selector" in key for key in moved)
    assert any("approximator" in key for key in moved)


def test_resume_after_the_end_writes_the_same_checkpoint(finished: Path) -> None:
    before = weights(finished / "ckpt.pth")
    (finished / "ckpt.pth").unlink()
    after = weights(trainer.train(RECIPE, OPTIONS, finished, resume=True).path)
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tofe": {"lr": 0.5}}, "tofe.lr was 0.001 and is now 0.5"),
        ({"run": {"seed": 9}}, "run.seed was 0 and is now 9"),
        ({"loss": {"budget": 3.0}}, "loss.budget was 10.0 and is now 3.0"),
        ({"tofe": {"epochs": 1}}, "tofe.epochs was 2 and is now 1"),
        ({"dense": {"epochs": 3}}, "dense.epochs was 2 and is now 3"),
        ({"network": {"selector": "linear"}}, "selector was 'mlp' and is now 'linear'"),
    ],
    ids=str,
)
def test_resume_with_other_settings_is_refused(finished: Path, change: dict[str, Any], words: str) -> None:
    with refused_as("resumed-with-other-settings", changes=(words,)):
        trainer.train(RECIPE.changed(**change), OPTIONS, finished, resume=True)


def test_more_epochs_go_on_after_the_last(finished: Path, tmp_path: Path) -> None:
    for name in ("state.pt", "ckpt.pth"):
        shutil.copy(finished / name, tmp_path)
    trainer.train(RECIPE.changed(tofe={"epochs": 3}), OPTIONS, tmp_path, resume=True)
    state = load_state(tmp_path)
    assert state is not None
    assert [entry["phase"] for entry in state.metrics] == ["dense", "dense", "tofe", "tofe", "tofe"]


def test_other_images_are_refused(tmp_path: Path) -> None:
    for label, name in enumerate("ab"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (20, 20), (90 * label, index, 0)).save(tmp_path / "data" / name / f"{index}.png")
    options = dataclasses.replace(OPTIONS, data=str(tmp_path / "data"))
    trainer.train(SHORT, options, tmp_path / "run")
    (tmp_path / "data" / "b").rename(tmp_path / "data" / "c")
    with refused_as("resumed-with-other-settings", changes=("classes was ['a', 'b'] and is now ['a', 'c']",)):
        trainer.train(SHORT, options, tmp_path / "run", resume=True)


def test_a_backbone_that_drops_patches_itself_is_refused(tmp_path: Path) -> None:
    dropping = RECIPE.changed(network={"backbone_args": {**NETWORK, "patch_drop_rate": 0.5}})
    with refused_as("patch-drop"):
        trainer.train(dropping, OPTIONS, tmp_path / "run")


def test_a_run_is_not_overwritten(finished: Path, tmp_path: Path) -> None:
    with refused_as("run-exists", path=finished):
        trainer.train(RECIPE, OPTIONS, finished)
    for name in ("ckpt.pth", "metrics.jsonl"):  # somebody removed state.pt to save space
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    for resume in (True, False):
        with refused_as("run-finished", path=tmp_path):
            trainer.train(RECIPE, OPTIONS, tmp_path, resume=resume)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()


def test_damaged_state_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"PK half a file")
    with refused_as("training-state", path=tmp_path / "state.pt"):
        trainer.train(RECIPE, OPTIONS, tmp_path, resume=True)


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
        {"recipe": {"lr": torch.ones(2)}},
        {"data": 3},
        {"epoch": {"steps": -1, "sums": {}}},
        {"epoch": {"steps": 1, "sums": {"loss": "low"}}},
        {"dense_accuracy": "good"},
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
        trainer.train(RECIPE, OPTIONS, tmp_path, resume=True)
    assert (tmp_path / "metrics.jsonl").read_bytes() == log


@pytest.mark.parametrize("width", [8, 16])  # at 8 the selector's MLP has another layer with two outputs
def test_fresh_selectors_keep_most_tokens(width: int) -> None:
    narrow = RECIPE.changed(network={"backbone_args": {**NETWORK, "embed_dim": width}})
    for stage in setup.build_network(narrow, config_of(narrow), False, None)[0].stages:
        assert stage.selector.out.bias.tolist() == pytest.approx([math.log(9), 0])


def test_init_skips_the_dense_phase_and_starts_from_the_file(finished: Path, tmp_path: Path) -> None:
    backbone = {key: value + 1 for key, value in checkpoint.load(finished / "ckpt.pth").model.vit.state_dict().items()}
    torch.save({"model": backbone}, tmp_path / "dense.pth")
    still = RECIPE.changed(tofe={"epochs": 1}, run={"limit_batches": 1})
    trainer.train(still, dataclasses.replace(OPTIONS, init=tmp_path / "dense.pth"), tmp_path / "run")
    state = load_state(tmp_path / "run")
    assert state is not None
    assert [entry["phase"] for entry in state.metrics] == ["tofe"]
    assert all(torch.equal(state.teacher[key], value) for key, value in backbone.items())


def test_init_with_foreign_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with refused_as("weights-do-not-fit", backbone="vit_tiny_patch16_224"):
        trainer.train(RECIPE, dataclasses.replace(OPTIONS, init=tmp_path / "other.pth"), tmp_path / "run")


def test_a_network_without_a_classifier_of_these_classes_learns_one_before_it_teaches(tmp_path: Path) -> None:
    theirs = setup.build_network(RECIPE, config_of(RECIPE.changed(network={"backbone_args": NETWORK})), False, None)[0]
    torch.save({"model": theirs.vit.state_dict()}, tmp_path / "dense.pth")  # of 1000 classes
    said: list[str] = []
    options = dataclasses.replace(OPTIONS, init=tmp_path / "dense.pth")
    trainer.train(SHORT, options, tmp_path / "run", note=said.append)
    state = load_state(tmp_path / "run")
    assert state is not None
    assert [entry["phase"] for entry in state.metrics] == ["dense", "tofe"]
    assert any("this run trains its own first" in sentence for sentence in said)


@pytest.mark.parametrize(("phase", "option"), [("dense", "dense_lr"), ("tofe", "lr")])
def test_a_loss_that_is_no_number_names_its_step_and_the_rate_of_its_phase(
    phase: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wild(logits: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
        return logits.sum() * torch.inf

    monkeypatch.setattr(losses, "classification_loss", wild)
    recipe = RECIPE.changed(dense={"epochs": 1 if phase == "dense" else 0})
    with refused_as("loss-not-finite", phase=phase, epoch=1, step=1) as caught:
        trainer.train(recipe, OPTIONS, tmp_path)
    assert f"a smaller `{option}`" in caught.value.next_step


@pytest.mark.parametrize(
    ("change", "code", "kind"),
    [
        ({"device": "cuda:99"}, "no-device", MissingError),
        ({"data": "photos"}, "no-labels", InputError),
        ({"device": "cuda:-1"}, "unknown-device", InputError),
        ({"device": "meta"}, "unknown-device", InputError),
        ({"device": "abacus"}, "unknown-device", InputError),
        ({"trackers": ("notebook",)}, "unknown-tracker", InputError),
    ],
    ids=str,
)
def test_options_that_cannot_be_used_here(
    change: dict[str, Any], code: str, kind: type[TofeError], tmp_path: Path
) -> None:
    with refused_as(code, kind):
        trainer.train(RECIPE, dataclasses.replace(OPTIONS, **change), tmp_path)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"network": {"backbone_args": {**NETWORK, "num_classes": 7}}}, "num-classes"),
        ({"tofe": {"budget": 0.1}}, "budget-unreachable"),
        ({"optimizer": {"name": "abacus"}}, "unknown-optimizer"),
        ({"run": {"batch_size": 6, "accumulate": 2}, "images": {"cutmix": 0.8}}, "mixing-needs-pairs"),
    ],
    ids=str,
)
def test_recipes_that_cannot_be_used_here(change: dict[str, Any], code: str, tmp_path: Path) -> None:
    with refused_as(code):
        trainer.train(RECIPE.changed(**change), OPTIONS, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_corrupt_images_trains_on_the_rest(tmp_path: Path) -> None:
    for label, name in enumerate("ab"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(3):
            Image.new("RGB", (20, 20), (90 * label, index, 0)).save(tmp_path / "data" / name / f"{index}.png")
    (tmp_path / "data" / "a" / "bad.png").write_bytes(b"x")
    log = ImageLog()
    recipe = RECIPE.changed(dense={"epochs": 0}, tofe={"epochs": 1}, run={"limit_batches": None})
    options = dataclasses.replace(OPTIONS, data=str(tmp_path / "data"))
    path = trainer.train(recipe, options, tmp_path / "run", log=log).path
    assert checkpoint.load(path).model.vit.num_classes == 2
    assert [Path(name).name for name in log.left_out] == ["bad.png"]


def test_each_step_is_reported_with_the_means_so_far(tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    watched: list[EpochMeans] = []
    trainer.train(SHORT, OPTIONS, tmp_path, progress=lambda *step: steps.append(step), watch=watched.append)
    assert steps == [(title, step, 2) for title in ("dense backbone 1/1", "ToFe 1/1") for step in range(3)]
    dense, tofe = watched[:2], watched[2:]
    assert [len(means.kept) for means in watched] == [0, 0, 3, 3]
    assert all(means.macs_ratio is None for means in dense)
    entry = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert (tofe[-1].loss, tofe[-1].accuracy, tofe[-1].budget) == (entry["loss"], entry["accuracy"], 0.5)
    assert (tofe[-1].macs_ratio, tofe[-1].kept[0]) == (entry["train_macs_ratio"], entry["train_keep_0"])
