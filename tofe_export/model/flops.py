"""Multiply-accumulates (MACs) of the dense backbone and of ToFe, differentiable in the kept counts.

Matrix products and convolutions count, element-wise work does not: the convention of the papers compared
with. GMACs = MACs / 1e9. The savings of the exported model are counted as savings.
"""

from __future__ import annotations

import copy
import functools
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tofe_export.model import backbones
from tofe_export.model.approximator import BlockApproximator
from tofe_export.model.blocks import can_split, explicit_attention
from tofe_export.model.families import Backbone
from tofe_export.model.lvvit import LVViT
from tofe_export.model.positions import positions_of
from tofe_export.model.selector import AttentionSelector, MlpSelector, Selector
from tofe_export.model.stage import Stage
from tofe_export.model.tofe import ToFe

Count = TypeVar("Count", float, Tensor)


@dataclass(frozen=True)
class BlockMacs:
    """MACs of a block on L rows: linear * L + square * L * L."""

    linear: float
    square: float

    def of(self, length: Any) -> Any:
        """MACs on `length` rows, which may be a tensor to differentiate through."""
        return length * self.linear + length * length * self.square


@dataclass(frozen=True)
class Measured:
    """MACs of one image: of patch embedding and head together, and of each block; and which blocks can run in part.

    The last cannot be seen in a block whose weights are sharded, for that changes its class.
    """

    ends: float
    blocks: tuple[BlockMacs, ...]
    parts: tuple[bool, ...]


_MEASURED: weakref.WeakKeyDictionary[Backbone, dict[int, Measured]] = weakref.WeakKeyDictionary()
"""network -> patch tokens -> what was counted, for a network may be given another image size."""


def dense_macs(vit: Backbone) -> float:
    """MACs of one image through the dense backbone."""
    length = int(vit.patch_embed.num_patches) + int(vit.num_prefix_tokens)
    measured = _measured(vit)
    return measured.ends + float(sum(block.of(float(length)) for block in measured.blocks))


def tofe_macs(model: ToFe, counts: Sequence[Count], features: bool | None = None) -> Count:
    """MACs of one image through ToFe's inference path.

    Args:
        model: see there.
        counts: kept patch tokens per stage; floats, or 0-dimensional tensors to differentiate through.
        features: the patch tokens are read too, not only the logits; None takes what the network was made for.
    """
    read_all = model.config.dense_output if features is None else features
    blocks, prefix = list(model.vit.blocks), model.prefix
    measured = _measured(model.vit)
    total: Any = measured.ends
    first = model.stage_blocks[0].start if model.stage_blocks else len(blocks)
    total += sum(block.of(float(prefix + model.tokens)) for block in measured.blocks[:first])
    alive: Any = float(model.tokens)
    for stage, indices, count in zip(model.stages, model.stage_blocks, counts, strict=True):
        assert isinstance(stage, Stage)
        cut = indices.stop == len(blocks) and model.prefix_head and not read_all
        chooses = isinstance(count, Tensor) or count != alive
        running = count + prefix + (1 if stage.fuse and chooses else 0)
        if chooses and stage.selector is not None:
            total = total + _selector_macs(stage.selector, alive + prefix)
        for index in indices:
            if chooses and stage.selector is None and index == indices.start:
                total = total + _choosing_block_macs(
                    blocks[index], alive + prefix, prefix if cut and len(indices) == 1 else running
                )
                total = total + ((alive - count) * model.vit.embed_dim if stage.fuse else 0)
            elif cut and index == indices[-1] and measured.parts[index]:
                total = total + _cut_block_macs(blocks[index], running, prefix)
            else:
                total = total + measured.blocks[index].of(running)
        if model.discards:
            alive = running - prefix
        elif stage.approximator is not None and not cut:
            total = total + _approximator_macs(stage.approximator, alive - count, measured.blocks[indices.start])
    if model.discards and isinstance(model.vit, LVViT):  # its head reads the tokens that are left
        total = total - (model.tokens - alive) * _linear_macs(model.vit.aux_head)
    return total  # type: ignore[no-any-return]


def _cut_block_macs(block: nn.Module, length: Any, prefix: int) -> Any:
    qkv = block.get_submodule("attn.qkv")
    assert isinstance(qkv, nn.Linear)
    keys_values = qkv.in_features * qkv.out_features * 2 / 3
    rest = _linear_macs(block) - keys_values
    return length * keys_values + prefix * rest + 2 * prefix * length * _attention_width(block)


def _choosing_block_macs(block: nn.Module, before: Any, after: Any) -> Any:
    """A block that chooses between its halves: attention over all its rows, the MLP over those that are left."""
    feed_forward = _linear_macs(block.get_submodule("mlp"))
    return (
        before * (_linear_macs(block) - feed_forward)
        + 2 * before * before * _attention_width(block)
        + after * feed_forward
    )


def _selector_macs(selector: Selector, length: Any) -> Any:
    macs = length * (_linear_macs(selector) - selector.out.in_features)  # one score, not two logits
    for part in selector.modules():  # itself, or what a selector of somebody's own is made of
        if isinstance(part, MlpSelector):  # its context half runs once an image, after a mean by product
            half = part.mix.in_features - part.mix.in_features // 2
            macs = macs - (length - 1) * half * part.mix.out_features + length * half
    if isinstance(selector, AttentionSelector):
        macs = macs + 2 * length * length * _attention_width(selector)
    return macs


def _approximator_macs(approximator: nn.Module, length: Any, block: BlockMacs) -> Any:
    """Of a copy of `block`, or of linear layers."""
    return block.of(length) if isinstance(approximator, BlockApproximator) else length * _linear_macs(approximator)


def _linear_macs(module: nn.Module) -> float:
    return float(
        sum(layer.in_features * layer.out_features for layer in module.modules() if isinstance(layer, nn.Linear))
    )


def _attention_width(block: nn.Module) -> int:
    proj = block.get_submodule("attn.proj")
    assert isinstance(proj, nn.Linear)
    return proj.in_features


def _measured(vit: Backbone) -> Measured:
    """Counted on the meta device by running the parts: once a network, for training asks at every step."""
    known, patches = _MEASURED.setdefault(vit, {}), int(vit.patch_embed.num_patches)
    if patches not in known:
        parts = copy.deepcopy(vit).to("meta").eval().requires_grad_(False)
        explicit_attention(parts)
        image = backbones.zero_images(parts, 1, "meta")
        tokens = torch.empty(1, patches + int(vit.num_prefix_tokens), vit.embed_dim, device="meta")
        ends = count_macs(lambda: (backbones.embed(parts, image), backbones.classify(parts, tokens)))
        few, more = (_blocks_macs(parts, count) for count in (1, 2))  # patches: two points fix the two numbers
        known[patches] = Measured(
            ends,
            tuple(_through(*pair, int(vit.num_prefix_tokens)) for pair in zip(few, more, strict=True)),
            tuple(can_split(block) for block in vit.blocks),
        )
    return known[patches]


def _blocks_macs(vit: Backbone, patches: int) -> list[float]:
    """MACs of each block on the prefix rows and `patches` patch tokens."""
    places = torch.arange(patches, device="meta").unsqueeze(0)
    tokens = torch.empty(1, int(vit.num_prefix_tokens) + patches, vit.embed_dim, device="meta")
    steps = positions_of(vit).steps(range(len(vit.blocks)), places)
    return [count_macs(functools.partial(step, tokens)) for step in steps]


def _through(few: float, more: float, prefix: int) -> BlockMacs:
    """From the MACs with one patch token and with two."""
    low, high = prefix + 1, prefix + 2
    square = (more * low - few * high) / (low * high)
    return BlockMacs(few / low - square * low, square)


def count_macs(run: Callable[[], object]) -> float:
    """MACs of whatever `run` executes, counted operator by operator (half of PyTorch's flop counter)."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops()) / 2
