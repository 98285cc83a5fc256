"""Wrappers, prefixes, copies and spare values around the weights of one network."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.checkpoints.published_files import HINTED, plain
from tests.helpers import refused_as, small_tofe
from tofe_export.checkpoints.checkpoint import Checkpoint, load, load_like, save
from tofe_export.checkpoints.foreign import Hints
from tofe_export.data.preprocessing import Preprocessing

TINY = Hints(backbone="deit_tiny_patch16_224", backbone_args=HINTED)
Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return dict(plain(tmp_path_factory.mktemp("plain") / "unused.pth").vit.state_dict())


def loaded(document: Any, tmp_path: Path, **hints: Any) -> Checkpoint:
    torch.save(document, tmp_path / "file.pth")
    return load(tmp_path / "file.pth", Hints(**{**vars(TINY), **hints}))


def under(prefix: str, weights: Weights) -> Weights:
    return {prefix + key: value for key, value in weights.items()}


WRAPPED: dict[str, Callable[[Weights], Any]] = {
    "a state dict": dict,
    "model": lambda w: {"model": w, "epoch": 3},
    "model_state_dict": lambda w: {"model_state_dict": w, "optimizer_state_dict": {"state": {}}},
    "net": lambda w: {"net": w, "acc": 1.0},
    "weights": lambda w: {"weights": w},
    "beside the model's settings": lambda w: {"model": {"name": "mine"}, "weights": w},
    "DeepSpeed": lambda w: {"module": w, "optimizer": None, "global_steps": 7},
    "in two wrappers": lambda w: {"state_dict": {"model": w}},
    "Lightning": lambda w: {"state_dict": under("model.", w), "pytorch-lightning_version": "2.5", "epoch": 3},
    "torch.compile": lambda w: under("_orig_mod.", w),
    "torch.compile of each block": lambda w: {key.replace("blocks.1.", "blocks.1._orig_mod."): w[key] for key in w},
    "compiled, then parallel": lambda w: {"model": under("module._orig_mod.", w)},
    "parallel, then compiled, in Lightning": lambda w: {"state_dict": under("model._orig_mod.module.", w)},
    "FSDP": lambda w: under("_fsdp_wrapped_module.", w),
    "backbone": lambda w: under("backbone.", w),
    "encoder in a model": lambda w: {"model": under("model.encoder.", w)},
    "student alone": lambda w: under("student.backbone.", w),
    "an averaged model": lambda w: {**under("module.", w), "n_averaged": torch.tensor(5)},
    "beside a loss": lambda w: {**w, "loss.weight": torch.ones(3), "logit_scale": torch.ones(())},
    "beside a projector": lambda w: {**under("backbone.", w), "projector.weight": torch.ones(2, 2)},
    "pruned": lambda w: {
        **{key: value for key, value in w.items() if key != "blocks.0.mlp.fc1.weight"},
        "blocks.0.mlp.fc1.weight_orig": w["blocks.0.mlp.fc1.weight"] * 1.0,
        "blocks.0.mlp.fc1.weight_mask": torch.ones_like(w["blocks.0.mlp.fc1.weight"]),
    },
}


@pytest.mark.parametrize("wrapped", WRAPPED.values(), ids=WRAPPED)
def test_the_same_weights_are_found(wrapped: Callable[[Weights], Any], weights: Weights, tmp_path: Path) -> None:
    found = loaded(wrapped(weights), tmp_path).model.vit.state_dict()
    assert found.keys() == weights.keys()
    for key, value in weights.items():
        assert torch.equal(found[key], value), key


def test_what_is_left_out_is_named_and_counted(weights: Weights, tmp_path: Path) -> None:
    spare = {name: torch.ones(()) for name in ("n_averaged", "logit_scale", "projector.weight")}
    notes = loaded({**under("module.", weights), **spare}, tmp_path).notes
    assert any(note.startswith("3 of its tensors") and "projector.weight" in note for note in notes)
    assert not any("left out" in note for note in loaded(weights, tmp_path).notes)


def test_a_mask_is_applied(weights: Weights, tmp_path: Path) -> None:
    name = "blocks.0.mlp.fc1.weight"
    mask = (torch.arange(weights[name].numel()) % 2).reshape(weights[name].shape).float()
    pruned = {**weights, f"{name}_orig": weights[name], f"{name}_mask": mask}
    del pruned[name]
    assert torch.equal(loaded(pruned, tmp_path).model.vit.state_dict()[name], weights[name] * mask)


def test_a_weight_that_the_network_does_not_have_is_no_spare_value(weights: Weights, tmp_path: Path) -> None:
    with refused_as("weights-do-not-fit"):
        loaded({**weights, "blocks.0.attn.extra.weight": torch.ones(2)}, tmp_path)


@pytest.mark.parametrize("selector", ["mlp", "none"])
@pytest.mark.parametrize("prefix", ["", "module.", "model._orig_mod."])
def test_own_networks_keep_their_names(prefix: str, selector: str, tmp_path: Path) -> None:
    model = small_tofe(selector=selector)
    save(tmp_path / "own.pth", Checkpoint(model, (), Preprocessing.of_backbone(model.vit)))
    document = torch.load(tmp_path / "own.pth", weights_only=True)
    torch.save({**document, "state_dict": under(prefix, document["state_dict"])}, tmp_path / "own.pth")
    torch.testing.assert_close(load(tmp_path / "own.pth").model.state_dict(), model.state_dict())


def twice(weights: Weights) -> Weights:
    return {key: torch.full_like(value, 2) for key, value in weights.items()}


PAIRS: dict[str, tuple[Callable[[Weights, Weights], Any], str]] = {
    "timm": (lambda model, ema: {"arch": "?", "state_dict": model, "state_dict_ema": ema}, "ema"),
    "DeiT": (lambda model, ema: {"model": model, "model_ema": ema}, "model"),
    "DINO": (
        lambda model, ema: {"student": under("module.backbone.", model), "teacher": under("backbone.", ema)},
        "ema",
    ),
    "DINO, flat": (lambda model, ema: {**under("student.backbone.", model), **under("teacher.backbone.", ema)}, "ema"),
    "EViT": (
        lambda model, ema: {"model": model, "model_ema": ema, "args": argparse.Namespace(base_keep_rate=0.5)},
        "model",
    ),
}


@pytest.mark.parametrize(("saved", "evaluated"), PAIRS.values(), ids=PAIRS)
def test_of_two_copies_the_one_that_the_writer_evaluates(
    saved: Callable[[Weights, Weights], Any], evaluated: str, weights: Weights, tmp_path: Path
) -> None:
    document = saved(weights, twice(weights))
    for choice in ("auto", "model", "ema"):
        found = loaded(document, tmp_path, weights=choice)
        expected = evaluated if choice == "auto" else choice
        assert found.copy == expected
        assert bool((found.model.vit.cls_token == 2).all()) is (expected == "ema")
        (note,) = (note for note in found.notes if "two copies" in note)
        assert ("as you say" in note) is (choice != "auto")
        again = load_like(tmp_path / "file.pth", found.model.config, found.copy)
        assert again.weights_sha256 == found.weights_sha256


def test_what_is_not_there_cannot_be_chosen(weights: Weights, tmp_path: Path) -> None:
    with refused_as("one-copy"):
        loaded(weights, tmp_path, weights="ema")
    with refused_as("unknown-value"):
        loaded(weights, tmp_path, weights="best")
    model = small_tofe()
    save(tmp_path / "own.pth", Checkpoint(model, (), Preprocessing.of_backbone(model.vit)))
    with refused_as("one-copy"):
        load(tmp_path / "own.pth", Hints(weights="ema"))


def test_several_networks_are_not_guessed_at(weights: Weights, tmp_path: Path) -> None:
    with refused_as("several-networks") as caught:
        loaded({**under("image.", weights), **under("depth.", weights)}, tmp_path)
    assert "'depth', 'image'" in caught.value.message


def test_a_classifier_behind_a_layer_that_timm_has_no_more_is_left_out(weights: Weights, tmp_path: Path) -> None:
    found = loaded(
        {**weights, "pre_logits.fc.weight": torch.eye(192), "pre_logits.fc.bias": torch.zeros(192)}, tmp_path
    )
    assert found.model.vit.num_classes == 0
    assert any("pre_logits" in note for note in found.notes)
