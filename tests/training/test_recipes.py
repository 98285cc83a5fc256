"""The demo recipe: it builds, its network fits the digits, and (slow) it reaches what it promises."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from tofe_export.checkpoints import checkpoint
from tofe_export.data.digits import CANVAS, STEP
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.model.tofe import build_tofe
from tofe_export.training.demo_settings import CONFIG, SETTINGS
from tofe_export.training.trainer import train


def test_the_network_takes_canvases_as_they_are() -> None:
    model = build_tofe(CONFIG)
    assert model.vit.patch_embed.img_size == (CANVAS, CANVAS)
    assert model.vit.patch_embed.patch_size == (STEP, STEP), "places are multiples of a patch"
    assert model.prefix_head


def test_the_network_has_tokens_enough_to_gain_from_freezing_some() -> None:
    """With 36 of them ToFe was slower than the dense backbone at batch 1 in ONNX Runtime."""
    assert build_tofe(CONFIG).tokens >= 64


def test_the_recipe_runs(tmp_path: Path) -> None:
    short = dataclasses.replace(SETTINGS, dense_epochs=1, epochs=1, limit_batches=1, limit_val=4)
    assert train(short, CONFIG, tmp_path).is_file()


@pytest.mark.slow
def test_the_recipe_keeps_its_promise(tmp_path: Path) -> None:
    loaded = checkpoint.load(train(SETTINGS, CONFIG, tmp_path))
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["val_accuracy"] >= 0.9
    ratio = tofe_macs(loaded.model, [float(count) for count in loaded.keep_counts()]) / dense_macs(loaded.model.vit)
    assert 0.475 <= ratio <= 0.525
    assert all(spread > 0 for spread in last["keep_std"])
    assert len(set(loaded.keep_counts())) > 1
