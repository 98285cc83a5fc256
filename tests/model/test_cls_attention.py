"""EViT: keep what the CLS token attends to, and let the rest go or add it up into one more token."""

import math
from typing import Any

import pytest
import torch
from timm.layers import Attention
from timm.models.vision_transformer import Block
from torch import Tensor

from tests.helpers import refused_as, small_images, small_tofe
from tofe_export.model import backbones
from tofe_export.model.blocks import run_steps
from tofe_export.model.config import ToFeConfig
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.selection import Layout, kept_masks
from tofe_export.model.selector import gumbel_choice, threshold_choice
from tofe_export.model.tofe import ToFe, check_keep

NETWORKS: list[dict[str, Any]] = [
    {},
    {"backbone": "deit_tiny_distilled_patch16_224"},
    {"reg_tokens": 2, "init_values": 0.5, "qk_norm": True},
    {"backbone": "lvvit_s"},
]
IDS = ["cls", "distilled", "registers", "lvvit"]


def evit(approximator: str = "fuse", **arguments: Any) -> ToFe:
    return small_tofe(**{"selector": "cls-attention", "approximator": approximator, **arguments})


@pytest.fixture(params=NETWORKS, ids=IDS)
def model(request: pytest.FixtureRequest) -> ToFe:
    return evit(**request.param)


def attention_by_hand(block: Block, tokens: Tensor, prefix: int) -> Tensor:
    """Mean over the heads of the CLS row of the attention matrix, patch tokens only [B, n]."""
    query, key, _ = block.attn.qkv(block.norm1(tokens)).chunk(3, dim=-1)
    rows = []
    for query_of_head, key_of_head in zip(query.chunk(2, dim=-1), key.chunk(2, dim=-1), strict=True):
        cls, others = block.attn.q_norm(query_of_head[:, :1]), block.attn.k_norm(key_of_head)
        rows.append((cls * others).sum(-1).div(math.sqrt(32 / 2)).softmax(dim=1))
    return torch.stack(rows).mean(0)[:, prefix:]


def tokens_after(model: ToFe, images: Tensor, blocks: int) -> Tensor:
    """The dense backbone's tokens after its first `blocks` blocks."""
    return run_steps(list(model.vit.blocks[:blocks]), backbones.embed(model.vit, images))


def attended(block: Block, tokens: Tensor) -> Tensor:
    """The first half of a block."""
    out: Tensor = tokens + block.ls1(block.attn(block.norm1(tokens)))
    return out


def fed_forward(block: Block, tokens: Tensor) -> Tensor:
    """The second half of a block."""
    out: Tensor = tokens + block.ls2(block.mlp(block.norm2(tokens)))
    return out


@torch.no_grad()
def test_scores_are_the_cls_tokens_mean_attention_in_the_stages_first_block(model: ToFe) -> None:
    images = small_images(3)
    found = model.forward_fixed(images, FixedPath((8, 5, 3))).stages[0]
    expected = attention_by_hand(model.vit.blocks[1], tokens_after(model, images, 1), model.prefix)
    torch.testing.assert_close(found.scores, expected, rtol=1e-4, atol=1e-6)
    assert found.scores.dtype == torch.float32
    assert torch.equal(found.perm.long(), expected.argsort(dim=1, descending=True))
    assert expected.std(dim=1).min() > 1e-3, "the tokens differ, or this shows little"


@torch.no_grad()
@pytest.mark.parametrize("approximator", ["discard", "fuse"])
@pytest.mark.parametrize("arguments", NETWORKS, ids=IDS)
def test_every_token_kept_is_the_backbone(arguments: dict[str, Any], approximator: str) -> None:
    model, images = evit(approximator, **arguments), small_images(3)
    out = model.forward_fixed(images, FixedPath((16, 16, 16)))
    torch.testing.assert_close(out.logits, model.vit(images), rtol=0, atol=1e-5)
    assert not out.stages, "where nothing is chosen, nothing is fused"


@torch.no_grad()
def test_every_token_kept_until_the_last_stage(model: ToFe) -> None:
    images = small_images(3)
    (trace,) = model.forward_fixed(images, FixedPath((16, 16, 4))).stages
    expected = attention_by_hand(model.vit.blocks[3], tokens_after(model, images, 3), model.prefix)
    torch.testing.assert_close(trace.scores, expected, rtol=1e-4, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("approximator", ["discard", "fuse"])
@pytest.mark.parametrize("arguments", NETWORKS, ids=IDS)
def test_a_block_chooses_between_its_halves(arguments: dict[str, Any], approximator: str) -> None:
    # All tokens attend; the MLP sees the kept ones and, last, the others' sum by attention, which is not normalised.
    model, images = evit(approximator, **arguments), small_images(3)
    trace = model.forward_fixed(images, FixedPath((6, 6, 6))).stages[0]
    block, before = model.vit.blocks[1], tokens_after(model, images, 1)
    prefix, patches = attended(block, before).split([model.prefix, 16], dim=1)
    for image, scores in enumerate(attention_by_hand(block, before, model.prefix)):
        order = scores.argsort(descending=True)
        rows = [*prefix[image], *(patches[image, index] for index in order[:6])]
        if approximator == "fuse":
            rows.append(torch.stack([scores[index] * patches[image, index] for index in order[6:]]).sum(0))
        expected = fed_forward(block, torch.stack(rows).unsqueeze(0))
        torch.testing.assert_close(trace.tokens[image : image + 1], expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_fused_token_takes_part_in_the_next_selection() -> None:
    model, images = evit(), small_images(3)
    first, second, third = model.forward_fixed(images, FixedPath((8, 5, 3))).stages
    assert [trace.scores.shape[1] for trace in (first, second, third)] == [16, 8 + 1, 5 + 1]
    expected = attention_by_hand(model.vit.blocks[2], first.tokens, 1)
    torch.testing.assert_close(second.scores, expected, rtol=1e-4, atol=1e-6)
    # It comes last, and a selection may keep it or fuse it again.
    fused = {1: torch.tensor([[8, *range(8)]] * 3, dtype=torch.int32)}
    kept = model.forward_fixed(images, FixedPath((8, 1, 1), selection=fused))
    block = model.vit.blocks[2]
    alone = fed_forward(block, attended(block, first.tokens)[:, -1:])
    torch.testing.assert_close(kept.stages[1].tokens[:, 1:2], alone, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_fused_token_has_no_place_in_the_image() -> None:
    images, order = small_images(2), [15, 3, 7, 1]
    first = torch.tensor([order + [index for index in range(16) if index not in order]] * 2, dtype=torch.int32)
    second = torch.tensor([[4, 2, 0, 1, 3]] * 2, dtype=torch.int32)  # the fused token, then the tokens 7 and 15
    third = torch.tensor([[1, 0, 3, 2]] * 2, dtype=torch.int32)
    out = evit().forward_fixed(images, FixedPath((4, 3, 1), selection={0: first, 1: second, 2: third}))
    perms = {trace.index: trace.perm for trace in out.stages}
    masks = kept_masks(perms, (4, 3, 1), Layout(16, True, True, True))
    assert [mask[0].nonzero().flatten().tolist() for mask in masks] == [[1, 3, 7, 15], [7, 15], [7]]


@torch.no_grad()
def test_nothing_is_put_back_so_both_forms_are_one() -> None:
    model, images = evit(), small_images(3)
    spatial, elided = (model.forward_fixed(images, FixedPath((8, 5, 3), rearrange)) for rearrange in (True, False))
    assert torch.equal(spatial.logits, elided.logits)


def test_without_a_threshold_there_is_no_training_and_no_choice_by_image(model: ToFe) -> None:
    images = small_images(2)
    for choose in (threshold_choice, gumbel_choice(1.0)):
        with refused_as("no-threshold"):
            model.forward_masked(images, choose)
    with refused_as("no-threshold"):
        model.forward_threshold(images)
    with refused_as("no-threshold"):
        model(images)
    with refused_as("no-threshold"):
        model.train()(images)


def test_it_has_no_parameters_of_its_own(model: ToFe) -> None:
    assert all(name.startswith("vit.") for name in model.state_dict())


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"approximator": "fuse"}, "fuse-without-attention"),
        ({"approximator": "fuse", "selector": "none"}, "fuse-without-attention"),
        ({"approximator": "bottleneck", "selector": "cls-attention"}, "approximator-of-cls-attention"),
        ({"approximator": "identity", "selector": "cls-attention"}, "approximator-of-cls-attention"),
        ({"approximator": "discard", "dense_output": True}, "no-features"),
        ({"approximator": "fuse", "selector": "cls-attention", "dense_output": True}, "no-features"),
    ],
)
def test_configurations_that_contradict_themselves(options: dict[str, Any], code: str) -> None:
    with refused_as(code):
        ToFeConfig("vit_tiny_patch16_224", **options)


@pytest.mark.parametrize(
    "arguments", [{"class_token": False, "global_pool": "avg"}, {"global_pool": "avg"}], ids=["no CLS", "average"]
)
def test_backbones_without_a_cls_tokens_attention(arguments: dict[str, Any]) -> None:
    with refused_as("head-reads-every-token"):
        evit(**arguments)


def test_blocks_that_cannot_be_run_by_halves_are_refused() -> None:
    class Another(Attention):
        """It may do whatever it wants with its weights."""

    model = evit()
    model.vit.blocks[2].attn.__class__ = Another
    with refused_as("no-attention-of-cls"):
        ToFe(model.vit, model.config)


@pytest.mark.parametrize(
    ("options", "keep", "found"),
    [
        ({"approximator": "fuse"}, (8, 5, 3), [16, 9, 6, 4]),
        ({"approximator": "fuse"}, (16, 8, 9), [16, 16, 9, 9]),
        ({"approximator": "fuse"}, (15, 16, 16), [16, 16, 16, 16]),
        ({"approximator": "discard"}, (8, 5, 3), [16, 8, 5, 3]),
        ({"approximator": "discard"}, (16, 5, 5), [16, 16, 5, 5]),
        ({"approximator": "bottleneck", "selector": "mlp"}, (8, 5, 12), [16, 16, 16, 16]),
    ],
)
@torch.no_grad()
def test_how_many_tokens_arrive(options: dict[str, Any], keep: tuple[int, ...], found: list[int]) -> None:
    model = evit(**options)
    assert model.arriving(keep) == found
    assert check_keep(keep, model) == keep
    for trace in model.forward_fixed(small_images(1), FixedPath(keep)).stages:
        assert trace.scores.shape[1] == found[trace.index]


@pytest.mark.parametrize(
    ("approximator", "keep", "stage"),
    [
        ("discard", (8, 9, 3), 1),
        ("fuse", (8, 10, 3), 1),  # eight and the fused one make nine
        ("fuse", (8, 9, 10), 2),  # stage 1 keeps all of them, so nothing more is fused
        ("fuse", (16, 8, 10), 2),
    ],
)
def test_more_than_arrive_cannot_be_kept(approximator: str, keep: tuple[int, ...], stage: int) -> None:
    with refused_as("keep-rises", stage=stage):
        check_keep(keep, evit(approximator))


@torch.no_grad()
def test_one_more_than_before_keeps_the_fused_token_too() -> None:
    model, images = evit(), small_images(2)
    (only,) = model.forward_fixed(images, FixedPath((8, 9, 9))).stages
    rest = run_steps(list(model.vit.blocks[2:]), only.tokens)
    expected = backbones.classify(model.vit, model.vit.norm(rest))
    torch.testing.assert_close(model.forward_fixed(images, FixedPath((8, 9, 9))).logits, expected, rtol=0, atol=1e-5)
