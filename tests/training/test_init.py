"""What a run can start from: weights of other sizes, without a classifier, in other code's names."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
import torchvision

from tests.formats.networks import randomized
from tests.helpers import refused_as, require_copied_blocks
from tofe_export.model.config import ToFeConfig
from tofe_export.model.tofe import ToFe, build_tofe
from tofe_export.training.setup import load_init

TINY = {"img_size": 64, "depth": 4, "num_classes": 3}


def tofe(name: str = "vit_tiny_patch16_224", **arguments: object) -> ToFe:
    return build_tofe(ToFeConfig(name, {**TINY, **arguments})).eval()


def test_position_embeddings_are_resized_as_timm_does(tmp_path: Path) -> None:
    theirs = randomized(timm.create_model("vit_tiny_patch16_224", **{**TINY, "img_size": 96}))
    torch.save(theirs.state_dict(), tmp_path / "large.pth")
    model = tofe()
    load_init(model, tmp_path / "large.pth")
    theirs.set_input_size(img_size=64)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(model.vit(images), theirs(images))


def test_a_network_without_a_classifier_keeps_the_run_s_own(tmp_path: Path) -> None:
    theirs = randomized(timm.create_model("vit_tiny_patch16_224", **{**TINY, "num_classes": 0}))
    torch.save({"model": theirs.state_dict()}, tmp_path / "features.pth")
    model = tofe()
    head = model.vit.head.weight.clone()
    load_init(model, tmp_path / "features.pth")
    assert torch.equal(model.vit.head.weight, head)
    assert torch.equal(model.vit.blocks[3].mlp.fc1.weight, theirs.blocks[3].mlp.fc1.weight)


def test_other_code_s_names_and_the_copy_that_was_taken(tmp_path: Path) -> None:
    theirs = randomized(torchvision.models.VisionTransformer(64, 16, 4, 3, 192, 768, num_classes=3))
    other = {key: value + 1 for key, value in theirs.state_dict().items()}
    torch.save({"model": theirs.state_dict(), "model_ema": other}, tmp_path / "vit.pth")
    model, said = tofe(), list[str]()
    load_init(model, tmp_path / "vit.pth", said.append)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(model.vit(images), theirs(images), rtol=1e-5, atol=1e-5)
    assert any('"model" was taken' in sentence for sentence in said)
    assert any("prepared otherwise (mean" in sentence for sentence in said)


def test_block_approximators_are_copies_of_the_blocks_that_were_loaded(tmp_path: Path) -> None:
    torch.save(randomized(timm.create_model("vit_tiny_patch16_224", **TINY)).state_dict(), tmp_path / "vit.pth")
    model = build_tofe(ToFeConfig("vit_tiny_patch16_224", TINY, approximator="block", stage_starts=(1, 3)))
    load_init(model, tmp_path / "vit.pth")
    require_copied_blocks(model)


def test_weights_of_another_depth_are_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("vit_tiny_patch16_224", **{**TINY, "depth": 5}).state_dict(), tmp_path / "deep.pth")
    with refused_as("weights-do-not-fit"):
        load_init(tofe(), tmp_path / "deep.pth")
