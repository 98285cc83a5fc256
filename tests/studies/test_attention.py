"""Attention of reused tokens: against an independent computation, and equal where it must be."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from studies.attention import StageAttention, reused_attention, why_not
from tests.helpers import small_images, small_tofe
from tofe_export.model.families import Backbone
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.tofe import ToFe

KEEP = (6, 7, 8)  # growing, so that tokens come back


def images_of(count: int = 4) -> torch.Tensor:
    return small_images(count, 3)


def nearness(network: ToFe, teacher: Backbone, keep: tuple[int, ...] = KEEP) -> list[tuple[float, float]]:
    """Mean cosine before and after, of every stage with reused tokens."""
    stages: list[StageAttention] = reused_attention(network, teacher, keep, images_of())
    return [(float(stage.near_before.mean()), float(stage.near_after.mean())) for stage in stages]


def by_hand(network: ToFe, images: torch.Tensor, approximated: bool) -> tuple[np.ndarray, np.ndarray]:
    """Stage 1, from the masks and the tokens alone: reused tokens bool [B, N], and their attention [B, N, N]."""
    fixed = network.forward_fixed(images, FixedPath(KEEP))
    first, second = fixed.stages[0], fixed.stages[1]
    tokens = first.tokens.clone()
    if not approximated:
        with torch.no_grad():
            embedded = network.vit.blocks[0](
                network.vit.norm_pre(network.vit._pos_embed(network.vit.patch_embed(images)))
            )
        for image, perm in enumerate(first.perm):
            frozen = 1 + perm[KEEP[0] :].long()
            tokens[image, frozen] = embedded[image, frozen]
    kept = [np.zeros((len(images), 16), bool) for _ in range(2)]
    for mask, trace, count in zip(kept, (first, second), KEEP, strict=False):
        for image, perm in enumerate(trace.perm):
            mask[image, perm[:count].numpy()] = True
    block = network.vit.blocks[network.config.stage_starts[1]]
    normed = block.norm1(tokens).detach().double().numpy()
    weight, bias = block.attn.qkv.weight.detach().double().numpy(), block.attn.qkv.bias.detach().double().numpy()
    query, key, _ = np.split(normed @ weight.T + bias, 3, axis=2)
    total = np.zeros((len(images), 17, 17))
    heads = block.attn.num_heads
    for q, k in zip(np.split(query, heads, axis=2), np.split(key, heads, axis=2), strict=True):
        scores = np.exp(q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[2]))
        total += scores / scores.sum(axis=2, keepdims=True) / heads
    patches = total[:, 1:, 1:]
    return kept[1] & ~kept[0], patches / patches.sum(axis=2, keepdims=True)


@pytest.mark.parametrize("approximated", [False, True], ids=["before", "after"])
def test_against_numpy(approximated: bool) -> None:
    network, images = small_tofe(), images_of()
    attention = reused_attention(network, network.vit, KEEP, images)[0]
    tokens, weights = by_hand(network, images, approximated)
    assert attention.stage == 1
    assert np.array_equal(attention.tokens.numpy(), tokens)
    actual = (attention.after if approximated else attention.before).numpy()
    for image in range(len(images)):
        expected = weights[image][tokens[image]].mean(axis=0) if tokens[image].any() else np.zeros(16)
        np.testing.assert_allclose(actual[image], expected, atol=1e-5)
    assert tokens.any()


def test_the_dense_network_as_its_own_approximator_is_exactly_near() -> None:
    """Blocks that leave tokens as they are make dense, before and after the same."""
    network = small_tofe(approximator="bottleneck")
    for block in network.vit.blocks:
        for part in (block.attn.proj, block.mlp.fc2):
            nn.init.zeros_(part.weight)
            nn.init.zeros_(part.bias)
    for stage in network.stages:
        if stage.approximator is not None:
            nn.init.zeros_(stage.approximator.up.weight)
            nn.init.zeros_(stage.approximator.up.bias)
    found = nearness(network, network.vit)
    assert found
    for before, after in found:
        assert before == pytest.approx(1.0)
        assert after == pytest.approx(1.0)


def test_a_wrong_approximator_is_farther_than_none() -> None:
    network = small_tofe()
    for block in network.vit.blocks:
        for part in (block.attn.proj, block.mlp.fc2):
            nn.init.zeros_(part.weight)
            nn.init.zeros_(part.bias)
    ((before, after), *_) = nearness(network, network.vit)
    assert before == pytest.approx(1.0)
    assert after < 0.999


def test_another_teacher_is_another_reference() -> None:
    network = small_tofe()
    teacher = copy.deepcopy(network.vit)
    nn.init.normal_(teacher.blocks[0].mlp.fc2.weight, std=0.5)
    own, other = (reused_attention(network, vit, KEEP, images_of())[0] for vit in (network.vit, teacher))
    assert int(own.tokens.sum()) == int(other.tokens.sum()) > 0
    assert own.near_after.mean() != other.near_after.mean()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ({}, ""),
        ({"approximator": "discard"}, "No token is ever used again"),
        ({"approximator": "identity"}, "The identity approximator leaves"),
        ({"stage_starts": (1,)}, "No token is ever used again"),
    ],
)
def test_why_there_is_nothing_to_show(kind: dict[str, object], reason: str) -> None:
    assert why_not(small_tofe(**kind)).startswith(reason)  # type: ignore[arg-type]
    assert bool(why_not(small_tofe(**kind))) == bool(reason)  # type: ignore[arg-type]


def test_counts_that_fall_to_nothing_new_reuse_nothing() -> None:
    assert nearness(small_tofe(), small_tofe().vit, (16, 16, 16)) == []
