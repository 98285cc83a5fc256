"""Other people's files: what they are taken for, what they say themselves, and what is refused."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.checkpoints.published_files import HINTED, dynamicvit, dynamicvit_weights, plain
from tests.helpers import refused_as, small_images, small_tofe
from tofe_export.checkpoints.checkpoint import Checkpoint, load, load_like, save
from tofe_export.checkpoints.foreign import Hints
from tofe_export.checkpoints.keep_rates import counts_of_rate, counts_of_ratios
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.model.fixed_path import FixedPath

TINY = Hints(backbone="deit_tiny_patch16_224", backbone_args=HINTED)


def hints(**more: Any) -> Hints:
    return Hints(**{**vars(TINY), **more})


@pytest.mark.parametrize("backbone", ["deit_tiny_patch16_224", "lvvit_t"])
def test_dynamicvit_is_the_network_with_discard(backbone: str, tmp_path: Path) -> None:
    model = dynamicvit(tmp_path / "d.pth", backbone)
    found = load(tmp_path / "d.pth", hints(backbone=backbone, keep_rate=0.5))
    assert found.recognised == "DynamicViT"
    assert found.keep_counts() == (8, 4, 2)
    images = small_images(2)
    torch.testing.assert_close(
        found.model.forward_fixed(images, FixedPath((8, 4, 2))).logits,
        model.forward_fixed(images, FixedPath((8, 4, 2))).logits,
    )


def test_the_command_line_in_a_file_counts(tmp_path: Path) -> None:
    """Published training code saves its arguments as a namespace, and an EMA copy that its evaluation does not read."""
    model = small_tofe(approximator="discard")
    ours = dynamicvit_weights(model)
    other = {key: torch.zeros_like(value) for key, value in ours.items()}
    arguments = argparse.Namespace(base_rate=0.7, arch="deit_small", output_dir="somewhere")
    torch.save({"model_ema": other, "model": ours, "args": arguments, "epoch": 29}, tmp_path / "d.pth")
    found = load(tmp_path / "d.pth", TINY)
    assert found.keep_rate == 0.7
    assert found.keep_counts() == (11, 7, 5)  # int(16 * .7), int(16 * .49), int(16 * .343)
    assert load(tmp_path / "d.pth", hints(keep_rate=0.5)).keep_counts() == (8, 4, 2)
    torch.testing.assert_close(found.model.state_dict(), model.state_dict())


def test_evit_says_itself_what_it_is(tmp_path: Path) -> None:
    arguments = argparse.Namespace(base_keep_rate=0.7, fuse_token=False, drop_loc="(1, 2)")
    plain(tmp_path / "e.pth", args=arguments)
    found = load(tmp_path / "e.pth", TINY)
    assert found.recognised == "EViT without a fused token"
    assert found.model.config.stage_starts == (1, 2)
    assert found.keep_counts() == (12, 9)  # ceil(.7 * 16), ceil(.7 * 12)
    assert load(tmp_path / "e.pth", hints(fuse_token=True)).keep_counts() == (
        12,
        10,
    )  # ceil(.7 * 13)
    assert not found.model.fuses


def test_evit_without_its_command_line_is_taken_as_published(tmp_path: Path) -> None:
    plain(tmp_path / "e.pth")
    found = load(tmp_path / "e.pth", hints(selector="cls-attention"))
    assert found.model.fuses
    assert any("`fuse_token=False`" in guess for guess in found.assumed)
    with refused_as("no-keep-rate", path=tmp_path / "e.pth"):
        found.keep_counts()


def test_a_plain_backbone_is_dense_and_says_so(tmp_path: Path) -> None:
    model = plain(tmp_path / "p.pth")
    found = load(tmp_path / "p.pth", TINY)
    assert found.recognised == "plain backbone, dense"
    assert found.keep_counts() == ()
    assert any("dense" in note and "`init`" in note for note in found.notes)
    images = small_images(2)
    torch.testing.assert_close(found.model.forward_fixed(images, FixedPath(())).logits, model.vit(images))


def test_methods_evaluate_as_their_own_code_does(tmp_path: Path) -> None:
    dynamicvit(tmp_path / "d.pth")
    plain(tmp_path / "p.pth")
    assert load(tmp_path / "d.pth", TINY).preprocessing.crop_pct == 0.875
    assert load(tmp_path / "p.pth", TINY).preprocessing.crop_pct == 0.9


def test_a_network_made_before_is_made_again(tmp_path: Path) -> None:
    plain(tmp_path / "e.pth")
    chosen = hints(selector="cls-attention", fuse_token=False, stages=(1, 3), image_size=(40, 24))
    first = load(tmp_path / "e.pth", chosen).model
    again = load_like(tmp_path / "e.pth", first.config).model
    assert again.config == first.config
    torch.testing.assert_close(again.state_dict(), first.state_dict())
    images = torch.randn(1, 3, 40, 24)
    torch.testing.assert_close(
        again.forward_fixed(images, FixedPath((9, 4))).logits, first.forward_fixed(images, FixedPath((9, 4))).logits
    )


def test_own_checkpoints_take_another_image_size_and_nothing_else(tmp_path: Path) -> None:
    model = small_tofe()
    save(tmp_path / "own.pth", Checkpoint(model, (0.5, 0.25, 0.125), Preprocessing.of_backbone(model.vit)))
    found = load(tmp_path / "own.pth", Hints(image_size=(64, 32)))
    assert (found.model.tokens, found.keep_counts()) == (32, (16, 8, 4))
    assert (found.preprocessing.height, found.preprocessing.width) == (64, 32)
    assert load_like(tmp_path / "own.pth", found.model.config).model.config == found.model.config
    with refused_as("hints-of-own-checkpoint"):
        load(tmp_path / "own.pth", Hints(keep_rate=0.5))


def test_a_parameter_free_network_of_this_program_is_its_own(tmp_path: Path) -> None:
    """It has no selector keys to be known by."""
    model = small_tofe(approximator="fuse", selector="cls-attention")
    save(tmp_path / "own.pth", Checkpoint(model, (), Preprocessing.of_backbone(model.vit)))
    assert load(tmp_path / "own.pth").model.config == model.config


@pytest.mark.parametrize(
    ("kind", "more", "code", "details"),
    [
        ("plain", {"keep_rate": 0.5}, "keeps-every-token", {"name": "keep_rate"}),
        ("plain", {"fuse_token": True}, "keeps-every-token", {"name": "fuse_token"}),
        ("plain", {"fuse_token": False}, "keeps-every-token", {"backbone": "deit_tiny_patch16_224"}),
        ("dynamicvit", {"fuse_token": False}, "hint-without-effect", {"name": "fuse_token"}),
        ("plain", {"stages": (1, 2)}, "keeps-every-token", {"name": "stages"}),
        ("plain", {"selector": "mlp"}, "no-predictors", {}),
        ("plain", {"selector": "linear"}, "selector-of-another-method", {"name": "linear"}),
        ("dynamicvit", {"selector": "cls-attention"}, "selector-contradicts-file", {"name": "cls-attention"}),
        ("dynamicvit", {"backbone_args": {**HINTED, "embed_dim": 64}}, "weights-do-not-fit", {}),
        ("dynamicvit", {"backbone": None}, "backbone-unknown", {}),
        ("dynamicvit", {"stages": (1, 2)}, "weights-do-not-fit", {}),
        ("plain", {"image_size": (33, 32)}, "image-size", {"fitting": "32x32"}),
    ],
)
def test_refusals(kind: str, more: dict[str, Any], code: str, details: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    {"plain": plain, "dynamicvit": dynamicvit}[kind](path)
    with refused_as(code, **details):
        load(path, hints(**more))


@pytest.mark.parametrize("rate", [0.0, -1.0, 1.5, float("nan")])
def test_keep_rates_outside_0_to_1(rate: float, tmp_path: Path) -> None:
    dynamicvit(tmp_path / "d.pth")
    with refused_as("keep-rate-range"):
        load(tmp_path / "d.pth", hints(keep_rate=rate)).keep_counts()


def test_predictors_of_another_kind(tmp_path: Path) -> None:
    weights = dynamicvit_weights(small_tofe(approximator="discard"))
    weights["score_predictor.0.conv.weight"] = torch.zeros(3)
    torch.save(weights, tmp_path / "d.pth")
    with refused_as("unknown-predictor", name="score_predictor.0.conv.weight"):
        load(tmp_path / "d.pth", TINY)


def test_keep_counts_round_as_each_method_does() -> None:
    """By hand, of 16 tokens; never none and never more than there are."""
    ratios = (0.0, 0.03, 0.09, 0.1, 0.97, 1.0)  # 0, 0.48, 1.44, 1.6, 15.52 and 16 tokens
    assert counts_of_ratios(ratios, 16) == (1, 1, 1, 2, 16, 16)
    dynamicvit, evit = small_tofe(approximator="discard"), small_tofe(approximator="discard", selector="cls-attention")
    assert counts_of_rate(dynamicvit, 0.7) == (11, 7, 5)  # int of 11.2, 7.84, 5.488
    assert counts_of_rate(dynamicvit, 0.1) == (1, 1, 1)  # int of 1.6, 0.16, 0.016
    assert counts_of_rate(evit, 0.7) == (12, 9, 7)  # the next above 11.2, 8.4, 6.3
    assert counts_of_rate(evit, 0.01) == (1, 1, 1)
    assert counts_of_rate(evit, 1.0) == counts_of_rate(dynamicvit, 1.0) == (16, 16, 16)


@pytest.mark.parametrize(("told", "averaged"), [("base_keep_rate", False), ("base_rate", False), ("lr", False)])
def test_of_two_copies_the_one_that_its_own_evaluation_reads(told: str, averaged: bool, tmp_path: Path) -> None:
    """DeiT, and with it EViT and DynamicViT, saves an average that it does not evaluate; timm's, see test_unwrap."""
    model = small_tofe(approximator="discard") if told == "base_rate" else plain(tmp_path / "unused.pth")
    weights = dynamicvit_weights(model) if told == "base_rate" else model.vit.state_dict()
    copies = {"model": weights, "model_ema": {key: torch.full_like(value, 2) for key, value in weights.items()}}
    torch.save({**copies, "args": argparse.Namespace(**{told: 0.5}, drop_loc="(1, 2)")}, tmp_path / "two.pth")
    found = load(tmp_path / "two.pth", TINY).model.vit.cls_token
    assert bool((found == 2).all()) is averaged
