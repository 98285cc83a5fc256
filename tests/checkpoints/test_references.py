"""Published-style files of every architecture, against an independent implementation (tests/references)."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch

from tests.references import published
from tofe_export.checkpoints.checkpoint import Checkpoint, load
from tofe_export.checkpoints.foreign import Hints
from tofe_export.model.approximator import DISCARD, FUSE
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.selector import CLS_ATTENTION

LARGE = "lvvit_l"  # more than a gigabyte in double precision
CASES = [pytest.param(name, marks=pytest.mark.slow) if name == LARGE else name for name in published.ENTRIES]


@functools.lru_cache(maxsize=1)
def opened(name: str, folder: Path) -> Checkpoint:
    case = published.case_of(name)
    path = folder / f"{name}.pth"
    torch.save({"model": published.state_dict(name)}, path)
    evit = case.method == "evit"
    return load(path, Hints(keep_rate=case.rate, selector=CLS_ATTENTION if evit else None, fuse_token=case.fuse))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("published")


@pytest.mark.parametrize("name", CASES)
def test_logits_are_the_references(name: str, folder: Path) -> None:
    found = opened(name, folder)
    case = published.case_of(name)
    assert found.model.config.backbone == case.backbone
    assert found.keep_counts() == tuple(published.ENTRIES[name]["kept"] or ())
    with torch.inference_mode():
        single = found.model.forward_fixed(published.images(name), FixedPath(found.keep_counts(), rearranged=False))
        torch.testing.assert_close(single.logits.double(), published.logits(name), rtol=0, atol=2e-5)
        # In double precision nothing is left but the order of sums: this tells apart LayerNorm's eps.
        wide = found.model.double().forward_fixed(published.images(name).double(), FixedPath(found.keep_counts()))
        torch.testing.assert_close(wide.logits, published.logits(name), rtol=0, atol=1e-9)
    found.model.float()


@pytest.mark.parametrize(
    ("name", "words", "selector", "approximator"),
    [
        ("deit_tiny", "plain backbone, dense", "none", "bottleneck"),
        ("dynamicvit_deit_small_0.5", "DynamicViT", "mlp", DISCARD),
        ("evit_deit_small_0.7", "EViT without a fused token", CLS_ATTENTION, DISCARD),
        ("evit_deit_small_0.7_fused", "EViT with a fused token", CLS_ATTENTION, FUSE),
    ],
)
def test_what_is_recognised(name: str, words: str, selector: str, approximator: str, folder: Path) -> None:
    found = opened(name, folder)
    assert found.recognised == words
    assert (found.model.config.selector, found.model.config.approximator) == (selector, approximator)
    assert found.model.config.backbone_args["num_classes"] == 10


def test_norms_have_the_published_eps(folder: Path) -> None:
    """The ranking, and so the logits, would not show another eps in the predictor."""
    model = opened("dynamicvit_deit_small_0.5", folder).model
    assert (model.stages[0].selector.embed[0].eps, model.vit.norm.eps) == (1e-5, 1e-6)
    lvvit = opened("dynamicvit_lvvit_s_0.5", folder).model
    assert (lvvit.stages[0].selector.embed[0].eps, lvvit.vit.norm.eps, lvvit.vit.blocks[3].norm2.eps) == (1e-5,) * 3
