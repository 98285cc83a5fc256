"""Features of every patch token, in spatial order, and images of other sizes than the network was trained on."""

from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import checkpoint_filter_fn

from tests.helpers import SMALL, refused_as, small_images, small_tofe
from tofe_export.checkpoints.checkpoint import Checkpoint
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.model.selector import threshold_choice
from tofe_export.model.tofe import build_tofe

BACKBONES: dict[str, dict[str, Any]] = {
    "cls": {},
    "distilled": {"backbone": "deit_tiny_distilled_patch16_224"},
    "registers": {"reg_tokens": 4, "no_embed_class": True, "init_values": 0.5, "qk_norm": True},
    "no prefix": {"class_token": False, "global_pool": "avg"},
    "map": {"global_pool": "map"},
    "lvvit": {"backbone": "lvvit_s"},
}


@pytest.fixture(params=BACKBONES.values(), ids=BACKBONES.keys())
def arguments(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(request.param)


def images_of(height: int, width: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(7))


@torch.no_grad()
@pytest.mark.parametrize("rearrange", [True, False])
def test_every_token_kept_gives_timms_features(arguments: dict[str, Any], rearrange: bool) -> None:
    model, images = small_tofe(**arguments), small_images(3)
    out = model.forward_fixed(images, FixedPath((16, 16, 16), rearrange, features=True))
    expected = model.vit.forward_features(images)[:, model.prefix :]
    assert out.features is not None
    assert out.features.shape == (3, 16, 32)
    torch.testing.assert_close(out.features, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(out.logits, model.vit(images), rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("keep", [(3, 12, 7), (15, 16, 9), (9, 6, 16)])
def test_features_do_not_depend_on_the_form(arguments: dict[str, Any], keep: tuple[int, ...]) -> None:
    model, images = small_tofe(**arguments, dense_output=True), small_images(3)
    spatial, elided = (
        model.forward_fixed(images, FixedPath(keep, rearrange, features=True)) for rearrange in (True, False)
    )
    assert spatial.features is not None
    torch.testing.assert_close(elided.features, spatial.features, rtol=0, atol=1e-5)
    dense = model.vit.forward_features(images)[:, model.prefix :]
    assert not torch.allclose(spatial.features, dense, atol=1e-2), "some tokens were frozen, or this shows little"


@torch.no_grad()
def test_features_change_no_logits(arguments: dict[str, Any]) -> None:
    model, images = small_tofe(**arguments, dense_output=True), small_images(3)
    for rearrange in (True, False):
        both = model.forward_fixed(images, FixedPath((8, 5, 3), rearrange, features=True))
        alone = model.forward_fixed(images, FixedPath((8, 5, 3), rearrange))
        assert alone.features is None
        torch.testing.assert_close(both.logits, alone.logits, rtol=0, atol=1e-5)


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    depth = draw(st.integers(1, 4))
    starts = draw(st.lists(st.integers(0, depth - 1), min_size=1, max_size=4, unique=True).map(sorted))
    pooled = draw(st.booleans())
    return {
        # 16 keeps every token; drawn often, for then the last stages put nothing back.
        "keep": tuple(draw(st.one_of(st.integers(1, 16), st.just(16))) for _ in starts),
        "images": draw(st.integers(0, 99)),
        "network": {
            "approximator": draw(st.sampled_from(["bottleneck", "identity", "block"])),
            "selector": draw(st.sampled_from(["mlp", "linear", "attention"])),
            "stage_starts": tuple(starts),
            "depth": depth,
            "reg_tokens": draw(st.integers(0, 2)),
            "class_token": not pooled or draw(st.booleans()),
            "global_pool": "avg" if pooled else "token",
            "dense_output": draw(st.booleans()),
            "seed": draw(st.integers(0, 5)),
        },
    }


@torch.no_grad()
@settings(max_examples=40)
@given(cases())
def test_permutations_compose_into_the_one_that_puts_everything_back(case: dict[str, Any]) -> None:
    model, images, keep = small_tofe(**case["network"]), small_images(2, case["images"]), case["keep"]
    spatial, elided = (
        model.forward_fixed(images, FixedPath(keep, rearrange, features=True)) for rearrange in (True, False)
    )
    torch.testing.assert_close(elided.features, spatial.features, rtol=0, atol=1e-4)
    torch.testing.assert_close(elided.logits, spatial.logits, rtol=0, atol=1e-4)
    order = torch.arange(16).expand(2, 16)
    for mine, theirs in zip(elided.stages, spatial.stages, strict=True):
        order = order.gather(1, mine.perm.long())
        assert torch.equal(order[:, : keep[mine.index]].sort().values, theirs.perm[:, : keep[mine.index]].sort().values)


@pytest.mark.parametrize(("selector", "approximator"), [("mlp", "discard"), ("cls-attention", "fuse")])
def test_where_tokens_are_discarded_there_are_no_features(selector: str, approximator: str) -> None:
    model = small_tofe(selector=selector, approximator=approximator)
    for keep in ((8, 5, 3), (16, 16, 16)):
        with refused_as("no-features", approximator=approximator):
            model.forward_fixed(small_images(1), FixedPath(keep, features=True))


@torch.no_grad()
@pytest.mark.parametrize("approximator", ["bottleneck", "block"])
def test_a_dense_outputs_last_approximator_is_for_the_features_alone(approximator: str) -> None:
    model, images = small_tofe(approximator=approximator, dense_output=True), small_images(3)
    before = model.forward_fixed(images, FixedPath((8, 5, 3), features=True))
    for parameter in model.stages[2].approximator.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    after = model.forward_fixed(images, FixedPath((8, 5, 3), features=True))
    assert torch.equal(after.logits, before.logits)
    changed = (after.features - before.features).abs().amax(dim=2) > 1e-4
    frozen = torch.zeros(3, 16, dtype=torch.bool).scatter_(1, before.stages[2].perm[:, 3:].long(), True)
    assert torch.equal(changed, frozen), "every token that the last stage froze, and no other"


@torch.no_grad()
def test_without_a_dense_output_the_last_stages_frozen_tokens_come_back_as_they_were_found() -> None:
    model, images = small_tofe(), small_images(3)
    assert model.stages[2].approximator is None
    assert model.stages[1].approximator is not None
    out = model.forward_fixed(images, FixedPath((8, 5, 3), features=True))
    found, frozen = model.vit.norm(out.stages[1].tokens)[:, 1:], out.stages[2].perm[:, 3:].long()
    for image in range(3):
        rows = frozen[image]
        torch.testing.assert_close(out.features[image, rows], found[image, rows], rtol=0, atol=1e-5)
        assert not torch.allclose(out.features[image], found[image], atol=1e-2)


def test_the_masked_path_estimates_what_a_dense_output_will_need() -> None:
    images = small_images(2)
    plain, dense = (small_tofe(dense_output=dense).forward_masked(images, threshold_choice) for dense in (False, True))
    assert len(plain.estimates) == 2
    assert len(dense.estimates) == 3
    assert dense.estimates[2].requires_grad, "so that a loss can train it"


@torch.no_grad()
@pytest.mark.parametrize("patch", [4, 8])
@pytest.mark.parametrize(("height", "width"), [(48, 48), (16, 48), (40, 24)])
def test_another_image_size_resamples_the_positions_as_timm_does(
    arguments: dict[str, Any], patch: int, height: int, width: int
) -> None:
    model = small_tofe(**arguments, patch_size=patch)
    vit, weights = model.vit, {name: value.clone() for name, value in model.vit.state_dict().items()}
    model.set_image_size(height, width)
    assert model.tokens == (height // patch) * (width // patch)
    prefixed = 0 if vit.no_embed_class else model.prefix
    by_hand = resample_abs_pos_embed(
        weights["pos_embed"], [height // patch, width // patch], [32 // patch, 32 // patch], prefixed
    )
    assert torch.equal(vit.pos_embed, by_hand)
    # And timm's own way: a network of the new size, given the old one's weights.
    options = {key: value for key, value in arguments.items() if key != "backbone"}
    name = model.config.backbone
    fresh = timm.create_model(name, **{**SMALL, **options, "patch_size": patch, "img_size": (height, width)}).eval()
    fresh.load_state_dict(checkpoint_filter_fn(weights, fresh))
    images = images_of(height, width)
    torch.testing.assert_close(vit(images), fresh(images), rtol=0, atol=1e-5)
    keep = (model.tokens,) * 3
    torch.testing.assert_close(model.forward_fixed(images, FixedPath(keep)).logits, fresh(images), rtol=0, atol=1e-5)


@torch.no_grad()
def test_as_many_patches_in_another_shape_have_other_positions() -> None:
    model = small_tofe()
    before = model.vit.pos_embed.clone()
    model.set_image_size(16, 64)
    assert model.tokens == 16
    assert torch.equal(model.vit.pos_embed, resample_abs_pos_embed(before, [2, 8], [4, 4], 1))
    assert not torch.equal(model.vit.pos_embed, before)
    assert model.forward_fixed(images_of(16, 64), FixedPath((8, 5, 3))).logits.shape == (2, 5)


@torch.no_grad()
def test_all_paths_take_the_new_size(arguments: dict[str, Any]) -> None:
    model = small_tofe(**arguments)
    model.set_image_size(24, 48)
    images = images_of(24, 48)
    out = model.forward_fixed(images, FixedPath((9, 5, 18), features=True))
    assert out.features is not None
    assert out.features.shape == (2, 18, 32)
    torch.testing.assert_close(model.forward_masked(images, threshold_choice).logits, model(images), rtol=0, atol=1e-5)
    with refused_as("keep-range", count=19, tokens=18):
        model.forward_fixed(images, FixedPath((19, 5, 3)))


@torch.no_grad()
def test_its_configuration_makes_the_network_of_the_new_size() -> None:
    model = small_tofe()
    model.set_image_size(24, 48)
    twin = build_tofe(model.config).eval()
    twin.load_state_dict(model.state_dict())
    images = images_of(24, 48)
    assert torch.equal(
        twin.forward_fixed(images, FixedPath((9, 5, 3))).logits,
        model.forward_fixed(images, FixedPath((9, 5, 3))).logits,
    )


@pytest.mark.parametrize(
    ("height", "width", "fitting"),
    [(36, 32, "32x32"), (32, 44, "32x40"), (7, 9, "8x8"), (0, 32, "8x32"), (32, -8, "32x8")],
)
def test_sizes_that_the_patches_do_not_fill_are_refused(height: int, width: int, fitting: str) -> None:
    model = small_tofe()
    with refused_as("image-size", size=(height, width), fitting=fitting):
        model.set_image_size(height, width)
    assert model.tokens == 16
    model(small_images(1))


def test_keep_ratios_follow_the_number_of_tokens() -> None:
    model = small_tofe()
    checkpoint = Checkpoint(model, (0.5, 0.3, 0.2), Preprocessing.of_backbone(model.vit))
    assert checkpoint.keep_counts() == (8, 5, 3)
    model.set_image_size(64, 48)
    assert model.tokens == 48
    assert checkpoint.keep_counts() == (24, 14, 10)


def test_the_cost_follows_the_image_size() -> None:
    model, fresh = small_tofe(), small_tofe()
    before = dense_macs(model.vit), tofe_macs(model, (8.0, 5.0, 3.0))
    for resized in (model, fresh):
        resized.set_image_size(64, 48)
    after = dense_macs(model.vit), tofe_macs(model, (8.0, 5.0, 3.0))
    assert after == (dense_macs(fresh.vit), tofe_macs(fresh, (8.0, 5.0, 3.0)))
    assert all(new > old for new, old in zip(after, before, strict=True))


@torch.no_grad()
def test_the_masked_paths_features_are_the_threshold_paths() -> None:
    images = small_images(3)
    assert small_tofe().forward_masked(images, threshold_choice).features is None
    model = small_tofe(dense_output=True)
    out = model.forward_masked(images, threshold_choice)
    for image, masks in enumerate(zip(*out.masks, strict=True)):
        keep = tuple(int(mask.sum()) for mask in masks)
        assert all(0 < count < 16 for count in keep), "every stage freezes some tokens, or this proves little"
        fixed = model.forward_fixed(images[image : image + 1], FixedPath(keep, features=True))
        torch.testing.assert_close(out.features[image], fixed.features[0], rtol=0, atol=1e-5)
