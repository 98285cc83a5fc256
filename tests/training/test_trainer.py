"""Training runs of a few steps: what they leave on disk, how they start, what is refused."""

from __future__ import annotations

import dataclasses
import gc
import json
import math
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.helpers import refused_as, require_copied_blocks
from tests.training.runs import NETWORK, OPTIONS, RECIPE, SHORT
from tofe_export.checkpoints import checkpoint
from tofe_export.data.image_log import ImageLog
from tofe_export.documents.history import DENSE, TOFE
from tofe_export.errors import InputError, MissingError, TofeError
from tofe_export.model.backbones import image_shape
from tofe_export.model.selector import threshold_choice
from tofe_export.training import losses, setup, trainer
from tofe_export.training.loop import EpochMeans
from tofe_export.training.phase import Phase
from tofe_export.training.recipe import config_of
from tofe_export.training.state import load_state


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


def test_block_approximators_begin_as_the_blocks_that_the_dense_phase_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, made = [], Phase.__post_init__

    def seen(phase: Phase) -> None:
        made(phase)
        begun.append(phase.name)
        if phase.name == TOFE:
            require_copied_blocks(phase.model)

    monkeypatch.setattr(Phase, "__post_init__", seen)
    deep = {"approximator": "block", "backbone_args": {**NETWORK, "depth": 8}, "stages": (1, 5)}
    trainer.train(SHORT.changed(network=deep, tofe={"budget": 0.7}), OPTIONS, tmp_path / "run")
    assert begun == [DENSE, TOFE]


def test_a_backbone_that_drops_patches_itself_is_refused(tmp_path: Path) -> None:
    dropping = RECIPE.changed(network={"backbone_args": {**NETWORK, "patch_drop_rate": 0.5}})
    with refused_as("patch-drop"):
        trainer.train(dropping, OPTIONS, tmp_path / "run")


@pytest.mark.parametrize("width", [8, 16])  # at 8 the selector's MLP has another layer with two outputs
def test_fresh_selectors_keep_most_tokens(width: int) -> None:
    narrow = RECIPE.changed(network={"backbone_args": {**NETWORK, "embed_dim": width}})
    for stage in setup.build_network(narrow, config_of(narrow), False, None)[0].stages:
        assert stage.selector.out.bias.tolist() == pytest.approx([math.log(9), 0])


@pytest.mark.parametrize("selector", ["mlp", "linear", "attention"])
def test_fresh_selectors_have_next_to_no_order_of_tokens(selector: str) -> None:
    recipe = RECIPE.changed(network={"selector": selector, "backbone_args": {**NETWORK, "embed_dim": 64}})
    model = setup.build_network(recipe, config_of(recipe), False, None)[0]
    with torch.no_grad():
        out = model.forward_masked(torch.randn(8, 3, *image_shape(model.vit)[1:]), threshold_choice)
    for scores in out.scores:
        assert scores.mean().item() == pytest.approx(math.log(9), abs=0.1)
        assert 0 < scores.std() < 0.05


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
    said.clear()
    trainer.train(SHORT.changed(dense={"epochs": 0}), options, tmp_path / "other", note=said.append)
    assert any("the teacher's answers are random" in sentence for sentence in said)
    assert not any("first, for" in sentence for sentence in said)


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


def test_what_the_digits_do_not_use_is_said(tmp_path: Path) -> None:
    """Their source augments them itself."""
    said: list[str] = []
    short = SHORT.changed(dense={"epochs": 0}, run={"limit_batches": 1})
    trainer.train(short.changed(images={"flip": 0.0, "erasing": 0.9}), OPTIONS, tmp_path / "one", note=said.append)
    assert (
        "The digits come augmented by their source, so the recipe's images.flip, images.erasing changes nothing."
        in said
    )
    said.clear()
    trainer.train(short, OPTIONS, tmp_path / "other", note=said.append)
    assert not [one for one in said if "digits" in one]


def test_the_dense_phase_is_gone_before_the_other_begins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its optimizer and its average of the weights take memory."""
    made: list[weakref.ref[Phase]] = []

    class Watched(Phase):
        def __post_init__(self) -> None:
            gc.collect()
            assert not [one for one in made if one() is not None]
            made.append(weakref.ref(self))
            super().__post_init__()

    monkeypatch.setattr(trainer, "Phase", Watched)
    trainer.train(SHORT, OPTIONS, tmp_path)
    assert len(made) == 2
