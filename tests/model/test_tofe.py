"""The three paths agree where DESIGN says they must, for every selector, approximator and kind of head."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from tests.helpers import refused_as, small_images, small_tofe
from tofe_export.errors import InputError
from tofe_export.model import backbones, blocks
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.flops import count_macs, dense_macs, tofe_macs
from tofe_export.model.selection import Layout, kept_masks
from tofe_export.model.selector import gumbel_choice, keep_scores, threshold_choice
from tofe_export.model.tofe import ToFe, check_keep

BACKBONES: list[dict[str, Any]] = [
    {},
    {"backbone": "deit_tiny_distilled_patch16_224"},
    {"reg_tokens": 4, "no_embed_class": True, "init_values": 0.5, "qk_norm": True},
    {"class_token": False, "global_pool": "avg"},
    {"global_pool": "avg"},
    {"global_pool": "map"},
]
IDS = ["cls", "distilled", "registers", "no prefix", "average", "map"]
KINDS = list(itertools.product(("mlp", "linear", "attention"), ("bottleneck", "identity", "block", "discard")))


@pytest.fixture(params=BACKBONES, ids=IDS)
def model(request: pytest.FixtureRequest) -> ToFe:
    return small_tofe(**request.param)


def hard(masks: list[torch.Tensor]) -> Any:
    return lambda stage, logits: masks[stage]


@torch.no_grad()
def test_every_token_kept_is_the_backbone(model: ToFe) -> None:
    images = small_images(3)
    expected = model.vit(images)
    assert isinstance(model.vit, VisionTransformer)
    torch.testing.assert_close(model.forward_fixed(images, FixedPath((16, 16, 16))).logits, expected, rtol=0, atol=1e-5)
    ones = [torch.ones(3, 16)] * 3
    torch.testing.assert_close(model.forward_masked(images, hard(ones)).logits, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_every_token_kept_by_score_is_the_backbone(model: ToFe) -> None:
    for stage in model.stages:
        stage.selector.out.bias[0] += 1e4
    images = small_images(2)
    torch.testing.assert_close(model(images), model.vit(images), rtol=0, atol=1e-5)


@torch.no_grad()
def test_threshold_is_fixed_with_the_images_own_counts(model: ToFe) -> None:
    counts = set()
    for image in small_images(4).split(1):
        (single,) = model.forward_threshold(image)
        keep = tuple(int((trace.scores > 0).sum()) for trace in single.stages)
        counts.add(keep)
        assert all(0 < count < 16 for count in keep)
        fixed = model.forward_fixed(image, FixedPath(keep))
        assert torch.equal(fixed.logits, single.logits)
    assert len(counts) > 1, "the images should differ, or this shows little"


@torch.no_grad()
@pytest.mark.parametrize(("selector", "approximator"), KINDS)
def test_masked_path_with_its_mask_is_the_threshold_path(selector: str, approximator: str) -> None:
    model = small_tofe(selector=selector, approximator=approximator)
    for image in small_images(3).split(1):
        (single,) = model.forward_threshold(image)
        keep = tuple(int((trace.scores > 0).sum()) for trace in single.stages)
        layout = Layout(16, True, model.discards)
        masks = kept_masks({trace.index: trace.perm for trace in single.stages}, keep, layout)
        masked = model.forward_masked(image, hard([mask.float() for mask in masks]))
        torch.testing.assert_close(masked.logits, single.logits, rtol=0, atol=1e-5)
        batched = model.forward_masked(image, threshold_choice)
        torch.testing.assert_close(batched.logits, single.logits, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_frozen_token_gets_no_attention_however_loud_it_is() -> None:
    # A finite log(eps) would lose against the attention logits that outlier tokens of trained networks have.
    model, image = small_tofe(), small_images(1)
    for block in model.vit.blocks:
        block.attn.qkv.weight.mul_(30)
    (single,) = model.forward_threshold(image)
    assert any(0 < int((trace.scores > 0).sum()) < 16 for trace in single.stages)
    torch.testing.assert_close(model.forward_masked(image, threshold_choice).logits, single.logits, rtol=0, atol=1e-3)


@torch.no_grad()
def test_nothing_kept_still_classifies() -> None:
    model = small_tofe()
    for stage in model.stages:
        stage.selector.out.bias[0] -= 1e4
    (single,) = model.forward_threshold(small_images(1))
    assert single.logits.isfinite().all()
    masked = model.forward_masked(small_images(1), threshold_choice)
    torch.testing.assert_close(masked.logits, single.logits, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("keep", [(8, 4, 2), (3, 12, 7), (1, 1, 1), (15, 16, 9)])
def test_elide_equals_rearrange(model: ToFe, keep: tuple[int, ...]) -> None:
    images = small_images(3)
    spatial, permuted = (
        model.forward_fixed(images, FixedPath(keep)),
        model.forward_fixed(images, FixedPath(keep, rearranged=False)),
    )
    torch.testing.assert_close(permuted.logits, spatial.logits, rtol=0, atol=1e-5)
    ours = kept_masks({t.index: t.perm for t in spatial.stages}, keep, Layout(16, True, False))
    theirs = kept_masks({t.index: t.perm for t in permuted.stages}, keep, Layout(16, False, False))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert [int(mask.sum()) for mask in ours] == [3 * count for count in keep]


@torch.no_grad()
def test_a_given_selection_is_obeyed() -> None:
    model, images = small_tofe(), small_images(2)
    backwards = {stage: torch.arange(15, -1, -1, dtype=torch.int32).expand(2, -1) for stage in range(3)}
    out = model.forward_fixed(images, FixedPath((4, 4, 4), selection=backwards))
    assert all(torch.equal(trace.perm, backwards[trace.index]) for trace in out.stages)
    assert not torch.equal(out.logits, model.forward_fixed(images, FixedPath((4, 4, 4))).logits)


@pytest.mark.parametrize(("selector", "approximator"), KINDS)
def test_gradients_reach_every_part(selector: str, approximator: str) -> None:
    model = small_tofe(selector=selector, approximator=approximator).train()
    torch.manual_seed(1)
    out = model.forward_masked(small_images(4), gumbel_choice(1.0))
    assert all(((mask.detach() == 0) | ((mask.detach() - 1).abs() < 1e-6)).all() for mask in out.masks)
    out.logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    for index, stage in enumerate(model.stages):
        assert stage.selector.out.weight.grad.abs().sum() > 0, f"selector {index}"


@pytest.mark.parametrize("approximator", ["bottleneck", "discard"])
@pytest.mark.parametrize("selector", ["mlp", "linear", "attention"])
def test_gradients_of_masks_end_at_the_selectors(selector: str, approximator: str) -> None:
    model = small_tofe(selector=selector, approximator=approximator)
    masks = model.forward_masked(small_images(2), gumbel_choice(1.0)).masks
    sum((mask * torch.randn(2, 16)).sum() for mask in masks).backward()
    reached = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert reached == {name for name, _ in model.named_parameters() if ".selector." in name}


@pytest.mark.parametrize("selector", ["mlp", "attention"])
def test_a_selector_does_not_learn_from_what_later_ones_see(selector: str) -> None:
    model = small_tofe(selector=selector, approximator="discard")
    seen: list[torch.Tensor] = []

    def choose(stage: int, logits: torch.Tensor) -> torch.Tensor:
        seen.append(logits)
        return gumbel_choice(1.0)(stage, logits)

    model.forward_masked(small_images(2), choose)
    (seen[1] * torch.randn(2, 16, 2)).sum().backward()
    reached = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert reached == {name for name, _ in model.named_parameters() if name.startswith("stages.1.selector.")}


@pytest.mark.parametrize(
    "arguments", [{}, {"init_values": 0.3}, {"qk_norm": True}, {"qkv_bias": False}, {"drop_path_rate": 0.9}]
)
def test_a_block_run_in_part_is_the_block(arguments: dict[str, Any]) -> None:
    """In training, too, with a bias, and with the bias's gradients."""
    block = small_tofe(**arguments).vit.blocks[-1].train()
    assert blocks.can_split(block)
    tokens = torch.randn(8, 9, 32)
    expected, theirs = _with_gradient_of_bias(lambda bias: block(tokens, attn_mask=bias)[:, :3])
    for run in (
        lambda bias: blocks.block_on_prefix(block, tokens, 3, bias),
        lambda bias: blocks.block_with_learned_bias(block, tokens, bias)[:, :3],
        lambda bias: blocks.run_steps([blocks.Recomputed(block)], tokens, bias, 3),
    ):
        found, gradient = _with_gradient_of_bias(run)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(gradient, theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(blocks.block_on_prefix(block.eval(), tokens, 3), block(tokens)[:, :3], rtol=0, atol=1e-5)


def _with_gradient_of_bias(run: Callable[[torch.Tensor], torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    bias = torch.linspace(-3, 1, 9).view(1, 1, 1, 9).repeat(8, 1, 1, 1).requires_grad_()
    torch.manual_seed(1)  # of paths that are dropped
    out = run(bias)
    out.square().sum().backward()
    assert bias.grad is not None
    return out.detach(), bias.grad


@torch.no_grad()
def test_dense_tokens_are_the_backbones(model: ToFe) -> None:
    seen: list[torch.Tensor] = []
    hooks = [block.register_forward_hook(lambda block, given, out: seen.append(out)) for block in model.vit.blocks]
    images = small_images(2)
    expected, after = model.vit(images), list(seen)
    for hook in hooks:
        hook.remove()
    for ends in ([], [1, 3], [2, len(after)]):
        logits, tokens = backbones.dense_tokens(model.vit, images, ends)
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
        for found, end in zip(tokens, ends, strict=True):
            torch.testing.assert_close(found, after[end - 1], rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("selector", ["mlp", "linear", "attention"])
def test_scores_are_the_logits_difference_in_float32(selector: str) -> None:
    chosen = small_tofe(selector=selector).stages[0].selector
    tokens = torch.randn(2, 1 + 16, 32)
    expected = keep_scores(chosen.logits(tokens, 1))
    assert expected.shape == (2, 16)
    torch.testing.assert_close(chosen(tokens, 1), expected, rtol=1e-4, atol=1e-4)
    assert chosen.bfloat16()(tokens.bfloat16(), 1).dtype == torch.float32


@torch.no_grad()
@pytest.mark.parametrize("selector", ["mlp", "linear", "attention"])
def test_selectors_do_not_look_at_prefix_rows_nor_at_dead_tokens(selector: str) -> None:
    chosen = small_tofe(selector=selector).stages[0].selector
    tokens = torch.randn(2, 2 + 16, 32)
    changed = tokens.clone()
    changed[:, :2] += 5
    torch.testing.assert_close(chosen(changed, 2), chosen(tokens, 2), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(chosen(tokens[:, 2:], 0), chosen(tokens, 2), rtol=1e-5, atol=1e-5)
    alive = torch.ones(2, 16)
    alive[:, 10:] = 0
    survivors = chosen.logits(tokens, 2, alive)[:, :10]
    torch.testing.assert_close(survivors, chosen.logits(tokens[:, :12], 2), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("selector", "approximator"), KINDS)
def test_macs_equal_a_count_by_hooks(selector: str, approximator: str) -> None:
    model, keep = small_tofe(selector=selector, approximator=approximator).requires_grad_(False), (9, 7, 2)
    blocks.explicit_attention(model)  # PyTorch 2.11's counter does not know the CPU's fused attention
    counted = count_macs(lambda: model.forward_fixed(small_images(1), FixedPath(keep)))
    assert tofe_macs(model, [float(count) for count in keep]) == pytest.approx(counted, rel=0.01)


def test_macs_of_every_head(model: ToFe) -> None:
    image = small_images(1)
    model.requires_grad_(False)  # PyTorch's counter stumbles over parameters outside autograd
    blocks.explicit_attention(model)
    assert dense_macs(model.vit) == pytest.approx(count_macs(lambda: model.vit(image)), rel=0.01)
    for keep in ((9, 7, 2), (16, 16, 4)):
        counted = count_macs(lambda keep=keep: model.forward_fixed(image, FixedPath(keep)))
        assert tofe_macs(model, [float(count) for count in keep]) == pytest.approx(counted, rel=0.01)


def test_macs_are_differentiable() -> None:
    counts = [torch.tensor(8.0, requires_grad=True) for _ in range(3)]
    tofe_macs(small_tofe(), counts).backward()
    assert all(count.grad is not None and count.grad > 0 for count in counts)


@pytest.mark.parametrize(
    ("keep", "code", "details"),
    [
        ((8, 4), "keep-length", {"stages": 3}),
        ((8, 4, 2, 1), "keep-length", {"keep": (8, 4, 2, 1)}),
        ((0, 4, 2), "keep-range", {"stage": 0, "count": 0, "tokens": 16}),
        ((8, 17, 2), "keep-range", {"stage": 1, "count": 17}),
    ],
)
def test_keep_counts_that_do_not_fit(keep: tuple[int, ...], code: str, details: dict[str, object]) -> None:
    with refused_as(code, **details):
        check_keep(keep, small_tofe())


def test_discarded_tokens_cannot_come_back() -> None:
    with refused_as("keep-rises", stage=1):
        check_keep((4, 8, 2), small_tofe(approximator="discard"))
    with refused_as("head-reads-every-token"):
        small_tofe(approximator="discard", global_pool="avg")


@pytest.mark.parametrize(
    ("arguments", "code", "nearest"),
    [
        ({"backbone": "deit_smal_patch16_224"}, "unknown-backbone", "deit_small_patch16_224"),
        ({"backbone": "resnet18"}, "not-a-plain-vit", "vit_*"),
        ({"stage_starts": (3, 2)}, "stage-starts", ""),
        ({"stage_starts": (1, 9)}, "stage-starts", ""),
        ({"selector": "mpl"}, "unknown-selector", "mlp"),
        ({"approximator": "botleneck"}, "unknown-approximator", "bottleneck"),
        ({"depht": 3}, "unknown-backbone-argument", "depth"),
        ({"class_token": "maybe"}, "backbone-argument-kind", "class_token=true"),
    ],
)
def test_configurations_that_cannot_be_built(arguments: dict[str, Any], code: str, nearest: str) -> None:
    with pytest.raises(InputError) as caught:
        small_tofe(**arguments)
    assert caught.value.code == code
    assert nearest in caught.value.next_step


def test_a_dense_network_may_have_no_block() -> None:
    model, images = small_tofe(depth=0, selector="none"), small_images(2)
    with torch.inference_mode():
        assert torch.equal(model.forward_fixed(images, FixedPath(())).logits, model.vit(images))


def test_a_learned_bias_gives_what_an_attention_mask_does(model: ToFe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits and all gradients, the selectors' above all."""
    found = []
    for learned in (True, False):
        with monkeypatch.context() as patch:
            if not learned:
                patch.setattr(blocks, "can_split", lambda block: False)
            torch.manual_seed(3)
            model.zero_grad(set_to_none=True)
            out = model.forward_masked(small_images(3), gumbel_choice(1.0))
            out.logits.square().sum().backward()
            gradients = {key: value.grad.clone() for key, value in model.named_parameters() if value.grad is not None}
            found.append((out.logits.detach(), gradients))
    (logits, gradients), (expected, theirs) = found
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert gradients.keys() == theirs.keys()
    assert any("selector" in key and value.abs().max() > 1e-4 for key, value in gradients.items())
    for key, value in gradients.items():
        torch.testing.assert_close(value, theirs[key], rtol=1e-3, atol=1e-5)
