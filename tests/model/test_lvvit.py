"""LV-ViT: the published sizes, and what sets it apart from a DeiT (stem, residual scale, a head over all tokens)."""

from typing import Any

import pytest
import timm
import torch
from torch import nn

from tests.helpers import refused_as, small_images, small_tofe, weightless
from tofe_export.errors import InputError
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.flops import dense_macs
from tofe_export.model.lvvit import LVViT
from tofe_export.model.selector import gumbel_choice, threshold_choice
from tofe_export.model.tofe import ToFe


def lvvit(backbone: str = "lvvit_s", **arguments: Any) -> ToFe:
    return small_tofe(backbone, **arguments)


def stem_statistics(model: ToFe) -> list[torch.Tensor]:
    return [value.clone() for name, value in model.named_buffers() if "running" in name]


@pytest.mark.parametrize(
    ("name", "size", "millions"),
    # Published at these image sizes (README of TokenLabeling); the position embedding is a part of it.
    [("lvvit_t", 224, 8.53), ("lvvit_s", 224, 26.15), ("lvvit_m", 224, 55.83), ("lvvit_l", 448, 150.47)],
)
def test_timm_makes_the_published_sizes(name: str, size: int, millions: float) -> None:
    vit = weightless(lambda: timm.create_model(name, img_size=size))
    assert isinstance(vit, LVViT)
    assert round(sum(parameter.numel() for parameter in vit.parameters()) / 1e6, 2) == millions


def test_parameters_are_called_as_in_the_published_checkpoints() -> None:
    vit = weightless(lambda: timm.create_model("lvvit_s", depth=1))
    shapes = {name: tuple(value.shape) for name, value in vit.state_dict().items() if not name.endswith("_tracked")}
    norms = ("blocks.0.norm1", "blocks.0.norm2", "norm")
    batch_norms = [f"patch_embed.bn{index}" for index in (1, 2, 3)]
    assert shapes == {
        "cls_token": (1, 1, 384),
        "pos_embed": (1, 197, 384),
        "patch_embed.conv1.weight": (64, 3, 7, 7),
        "patch_embed.conv2.weight": (64, 64, 3, 3),
        "patch_embed.conv3.weight": (64, 64, 3, 3),
        "patch_embed.proj.weight": (384, 64, 8, 8),  # half a patch: the first convolution has halved the image
        "patch_embed.proj.bias": (384,),
        **{f"{bn}.{what}": (64,) for bn in batch_norms for what in ("weight", "bias", "running_mean", "running_var")},
        "blocks.0.attn.qkv.weight": (1152, 384),  # and no bias
        "blocks.0.attn.proj.weight": (384, 384),
        "blocks.0.attn.proj.bias": (384,),
        "blocks.0.mlp.fc1.weight": (1152, 384),  # three times as wide, not four
        "blocks.0.mlp.fc1.bias": (1152,),
        "blocks.0.mlp.fc2.weight": (384, 1152),
        "blocks.0.mlp.fc2.bias": (384,),
        **{f"{norm}.{what}": (384,) for norm in norms for what in ("weight", "bias")},
        "head.weight": (1000, 384),
        "head.bias": (1000,),
        "aux_head.weight": (1000, 384),
        "aux_head.bias": (1000,),
    }
    assert {module.eps for module in vit.modules() if isinstance(module, nn.LayerNorm)} == {1e-5}


@torch.no_grad()
def test_the_stem_is_three_convolutions_at_half_the_resolution_and_patches_of_them() -> None:
    stem, images = lvvit().vit.patch_embed, small_images(2)
    x = images
    for conv, bn, stride, padding in (
        (stem.conv1, stem.bn1, 2, 3),
        (stem.conv2, stem.bn2, 1, 1),
        (stem.conv3, stem.bn3, 1, 1),
    ):
        x = nn.functional.conv2d(x, conv.weight, stride=stride, padding=padding)
        mean, variance = bn.running_mean[:, None, None], bn.running_var[:, None, None]
        x = ((x - mean) / (variance + 1e-5).sqrt() * bn.weight[:, None, None] + bn.bias[:, None, None]).clamp(min=0)
    assert x.shape[2:] == (16, 16)
    found = stem(images)
    assert found.shape == (2, 16, 32)
    # Token 6 of a 4 x 4 grid is in row 1 and column 2, and half a patch is 4 pixels.
    by_hand = x[:, :, 4:8, 8:12].flatten(1) @ stem.proj.weight.flatten(1).T + stem.proj.bias
    torch.testing.assert_close(found[:, 6], by_hand, rtol=0, atol=1e-4)


@torch.no_grad()
def test_the_head_adds_half_of_the_greatest_auxiliary_score_of_any_token() -> None:
    vit, images = lvvit().vit, small_images(3)
    tokens = vit.forward_features(images)
    scores = torch.stack([vit.aux_head(tokens[:, 1 + index]) for index in range(16)])
    expected = vit.head(tokens[:, 0]) + 0.5 * scores.max(dim=0).values
    torch.testing.assert_close(vit(images), expected, rtol=0, atol=1e-5)
    assert len(scores.argmax(dim=0).unique()) > 1, "each class and image has its own token, or this shows little"


@torch.no_grad()
@pytest.mark.parametrize(("backbone", "divisor"), [("lvvit_t", 1), ("lvvit_s", 2), ("lvvit_m", 2), ("lvvit_l", 3)])
def test_residual_branches_are_divided(backbone: str, divisor: float) -> None:
    block, tokens = lvvit(backbone).vit.blocks[1], torch.randn(2, 17, 32)
    middle = tokens + block.attn(block.norm1(tokens)) / divisor
    expected = middle + block.mlp(block.norm2(middle)) / divisor
    torch.testing.assert_close(block(tokens), expected, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("approximator", ["bottleneck", "identity", "block"])
@pytest.mark.parametrize("keep", [(8, 4, 2), (3, 12, 7), (1, 1, 1), (15, 16, 9)])
def test_elide_is_exact_though_the_head_reads_every_token(approximator: str, keep: tuple[int, ...]) -> None:
    # Why: elide multiplies the tokens from the left by a permutation, which acts on rows only. Norms, linear layers and
    # the auxiliary head act on the features of one row, so they commute with it; attention and the selectors' mean sum
    # over all rows; and a maximum over rows, all that the head makes of them, does not care about their order.
    model, images = lvvit(approximator=approximator), small_images(3)
    spatial, elided = (model.forward_fixed(images, FixedPath(keep, rearrange)) for rearrange in (True, False))
    torch.testing.assert_close(elided.logits, spatial.logits, rtol=0, atol=1e-5)
    mine, theirs = elided.stages[-1].tokens, spatial.stages[-1].tokens
    assert mine.shape == theirs.shape == (3, 17, 32), "the head needs frozen tokens too"
    assert not torch.allclose(mine, theirs, atol=1e-2), "the rows are in another order, or this shows nothing"
    torch.testing.assert_close(mine.sort(dim=1).values, theirs.sort(dim=1).values, rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("selector", ["mlp", "linear", "attention"])
def test_a_discarded_token_never_wins_the_maximum(selector: str) -> None:
    model = lvvit(selector=selector, approximator="discard")
    final: list[torch.Tensor] = []
    model.vit.norm.register_forward_hook(lambda module, inputs, output: final.append(output))
    would_have_won = 0
    for image in small_images(4).split(1):
        (single,) = model.forward_threshold(image)
        assert 0 < int((single.stages[0].scores > 0).sum()) < 16
        masked = model.forward_masked(image, threshold_choice)
        torch.testing.assert_close(masked.logits, single.logits, rtol=0, atol=1e-5)
        # The dense path has rows for discarded tokens too. What stands there means nothing, and some of it is large.
        would_have_won += int((model.vit.forward_head(final[-1]) > masked.logits + 1e-3).sum())
    assert would_have_won > 0, "no discarded token is large enough to matter, so this shows nothing"


@torch.no_grad()
def test_an_image_that_keeps_nothing_is_classified_by_its_cls_token() -> None:
    model, images = lvvit(approximator="discard"), small_images(3)
    for stage in model.stages:
        stage.selector.out.bias[0] -= 1e4
    masked = model.forward_masked(images, threshold_choice).logits
    torch.testing.assert_close(masked, model(images), rtol=0, atol=1e-5)
    assert masked.abs().max() < 100, "the score of a token that is gone must not leak into the sum"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"patch_size": 7, "img_size": 28}, "must be even, not 7"),
        ({"global_pool": "avg"}, "takes no global_pool"),
        ({"global_pool": "map"}, "takes no global_pool"),
        ({"num_classes": 0}, "needs classes"),
    ],
)
def test_what_lvvit_cannot_be_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        lvvit(**arguments)
    assert caught.value.code == "backbone-args"


def test_its_own_arguments_are_not_a_plain_backbones() -> None:
    model = lvvit(skip_lam=4.0, stem=8)
    assert model.vit.blocks[0].ls1.divisor == model.vit.blocks[3].ls2.divisor == 4.0
    assert model.vit.patch_embed.conv3.weight.shape == (8, 8, 3, 3)
    with refused_as("unknown-backbone-argument", name="skip_lam"):
        small_tofe(skip_lam=4.0)


@pytest.mark.parametrize("approximator", ["bottleneck", "discard"])
def test_gradients_reach_the_auxiliary_head_the_stem_and_the_selectors(approximator: str) -> None:
    model = lvvit(approximator=approximator).train()
    torch.manual_seed(1)
    model.forward_masked(small_images(4), gumbel_choice(1.0)).logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    ends = ["vit.aux_head.weight", "vit.head.weight", *(f"vit.patch_embed.conv{index}.weight" for index in (1, 2, 3))]
    for name in (*ends, *(f"stages.{index}.selector.out.weight" for index in range(3))):
        assert model.get_parameter(name).grad.abs().sum() > 0, name


def test_only_training_moves_the_stems_running_statistics() -> None:
    model, images = lvvit(), small_images(4)
    before = stem_statistics(model)
    assert len(before) == 6
    model(images)
    model.forward_masked(images, threshold_choice).logits.sum().backward()
    model.forward_fixed(images, FixedPath((8, 5, 3)))
    model.train()
    dense_macs(model.vit)  # runs the stem to count it, on a copy
    assert all(torch.equal(old, new) for old, new in zip(before, stem_statistics(model), strict=True))
    model(images)
    assert not any(torch.equal(old, new) for old, new in zip(before, stem_statistics(model), strict=True))


@torch.no_grad()
def test_an_images_logits_do_not_depend_on_its_batch() -> None:
    model, images = lvvit(), small_images(4)
    together = model.forward_fixed(images, FixedPath((8, 5, 3))).logits
    alone = torch.cat([model.forward_fixed(image, FixedPath((8, 5, 3))).logits for image in images.split(1)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_fresh_heads_for_other_classes() -> None:
    vit = lvvit().vit
    vit.reset_classifier(7)
    assert vit(small_images(1)).shape == (1, 7)
    assert vit.aux_head.weight.shape == (7, 32)
