"""Published-style files of every architecture, against an independent implementation (tests/references)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.references import published
from tofe_export.checkpoints.checkpoint import load
from tofe_export.checkpoints.foreign import Hints
from tofe_export.model.approximator import DISCARD, FUSE
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.selector import CLS_ATTENTION

LARGE = "lvvit_l"  # more than a gigabyte in double precision
CASES = [pytest.param(name, marks=pytest.mark.slow) if name == LARGE else name for name in published.ENTRIES]


RECOGNISED = {
    ("dense", None): ("plain backbone, dense", "none", "bottleneck"),
    ("dynamicvit", None): ("DynamicViT", "mlp", DISCARD),
    ("evit", False): ("EViT without a fused token", CLS_ATTENTION, DISCARD),
    ("evit", True): ("EViT with a fused token", CLS_ATTENTION, FUSE),
}


@pytest.fixture
def _no_first_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a network is filled with before its file replaces every number takes most of the time of loading it."""
    for name in ("uniform_", "normal_", "erfinv_"):
        monkeypatch.setattr(torch.Tensor, name, lambda tensor, *_, **__: tensor)


@pytest.mark.usefixtures("_no_first_weights")
@pytest.mark.parametrize("name", CASES)
def test_a_file_is_recognised_and_its_logits_are_the_references(name: str, tmp_path: Path) -> None:
    case, path = published.case_of(name), tmp_path / f"{name}.pth"
    torch.save({"model": published.state_dict(name)}, path)
    evit = case.method == "evit"
    found = load(path, Hints(keep_rate=case.rate, selector=CLS_ATTENTION if evit else None, fuse_token=case.fuse))
    path.unlink()
    model, config = found.model, found.model.config
    assert (found.recognised, config.selector, config.approximator) == RECOGNISED[case.method, case.fuse]
    assert (config.backbone, config.backbone_args["num_classes"]) == (case.backbone, 10)
    assert found.keep_counts() == tuple(published.ENTRIES[name]["kept"] or ())
    # The ranking, and so the logits, would not show another eps in the predictor.
    assert {stage.selector.embed[0].eps for stage in model.stages if stage.selector is not None} <= {1e-5}
    eps = 1e-5 if case.backbone.startswith("lvvit") else 1e-6
    assert {model.vit.norm.eps, *(norm.eps for block in model.vit.blocks for norm in (block.norm1, block.norm2))} == {
        eps
    }
    with torch.inference_mode():
        single = model.forward_fixed(published.images(name), FixedPath(found.keep_counts(), rearranged=False))
        torch.testing.assert_close(single.logits.double(), published.logits(name), rtol=0, atol=2e-5)
        # In double precision nothing is left but the order of sums: this tells apart LayerNorm's eps.
        wide = model.double().forward_fixed(published.images(name).double(), FixedPath(found.keep_counts()))
        torch.testing.assert_close(wide.logits, published.logits(name), rtol=0, atol=1e-9)
