"""The demo recipe: it builds, its network fits the digits, and (slow) it reaches what it promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from tofe_export.checkpoints import checkpoint
from tofe_export.data.digits import CANVAS, STEP
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.model.tofe import build_tofe
from tofe_export.training.recipe import config_of, read_recipe
from tofe_export.training.run import RunOptions
from tofe_export.training.trainer import train

DEMO = read_recipe("digits")
OPTIONS = RunOptions("digits", device="cpu")


def test_the_network_takes_canvases_as_they_are() -> None:
    model = build_tofe(config_of(DEMO))
    assert model.vit.patch_embed.img_size == (CANVAS, CANVAS)
    assert model.vit.patch_embed.patch_size == (STEP, STEP), "places are multiples of a patch"
    assert model.prefix_head


def test_the_network_has_tokens_enough_to_gain_from_freezing_some() -> None:
    """With 36 of them ToFe was slower than the dense backbone at batch 1 in ONNX Runtime."""
    assert build_tofe(config_of(DEMO)).tokens >= 64


def test_the_recipe_runs(tmp_path: Path) -> None:
    short = DEMO.changed(dense={"epochs": 1}, tofe={"epochs": 1}, run={"limit_batches": 1, "limit_val": 4})
    assert train(short, OPTIONS, tmp_path).path.is_file()


@pytest.mark.slow
def test_the_recipe_keeps_its_promise(tmp_path: Path) -> None:
    loaded = checkpoint.load(train(DEMO, OPTIONS, tmp_path).path)
    last = loaded.metrics
    assert last["val_accuracy"] >= 0.9
    ratio = tofe_macs(loaded.model, [float(count) for count in loaded.keep_counts()]) / dense_macs(loaded.model.vit)
    assert 0.475 <= ratio <= 0.525
    assert all(spread > 0 for spread in last["keep_std"])
    assert len(set(loaded.keep_counts())) > 1
