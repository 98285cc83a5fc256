"""Multiply-accumulates (MACs) of the dense backbone and of ToFe, differentiable in the kept counts.

Matrix products and convolutions count, element-wise work does not: the convention of the papers compared
with. GMACs = MACs / 1e9. The savings of the exported model are counted as savings.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tofe_export.model import backbones
from tofe_export.model.blocks import can_split
from tofe_export.model.lvvit import LVViT
from tofe_export.model.selector import AttentionSelector, MlpSelector, Selector
from tofe_export.model.stage import Stage
from tofe_export.model.tofe import ToFe

_ENDS: weakref.WeakKeyDictionary[VisionTransformer, dict[int, float]] = weakref.WeakKeyDictionary()
"""network -> patch tokens -> MACs, for a network may be given another image size."""

Count = TypeVar("Count", float, Tensor)


def dense_macs(vit: VisionTransformer) -> float:
    """MACs of one image through the dense backbone."""
    length = int(vit.patch_embed.num_patches) + int(vit.num_prefix_tokens)
    return _ends_macs(vit) + float(sum(_block_macs(block, float(length)) for block in vit.blocks))


def tofe_macs(model: ToFe, counts: Sequence[Count], features: bool | None = None) -> Count:
    """MACs of one image through ToFe's inference path.

    Args:
        model: see there.
        counts: kept patch tokens per stage; floats, or 0-dimensional tensors to differentiate through.
        features: the patch tokens are read too, not only the logits; None takes what the network was made for.
    """
    read_all = model.config.dense_output if features is None else features
    blocks, prefix = list(model.vit.blocks), model.prefix
    total: Any = _ends_macs(model.vit)
    first = model.stage_blocks[0].start if model.stage_blocks else len(blocks)
    total += sum(_block_macs(block, float(prefix + model.tokens)) for block in blocks[:first])
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
            elif cut and index == indices[-1] and can_split(blocks[index]):
                total = total + _cut_block_macs(blocks[index], running, prefix)
            else:
                total = total + _block_macs(blocks[index], running)
        if model.discards:
            alive = running - prefix
        elif stage.approximator is not None and not cut:
            total = total + _approximator_macs(stage.approximator, alive - count)
    if model.discards and isinstance(model.vit, LVViT):  # its head reads the tokens that are left
        total = total - (model.tokens - alive) * _linear_macs(model.vit.aux_head)
    return total  # type: ignore[no-any-return]


def _block_macs(block: nn.Module, length: Any) -> Any:
    return length * _linear_macs(block) + 2 * length * length * _attention_width(block)


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
    if isinstance(selector, MlpSelector):  # its context half runs once an image, after a mean by product
        half = selector.mix.in_features - selector.mix.in_features // 2
        macs = macs - (length - 1) * half * selector.mix.out_features + length * half
    if isinstance(selector, AttentionSelector):
        macs = macs + 2 * length * length * _attention_width(selector)
    return macs


def _approximator_macs(approximator: nn.Module, length: Any) -> Any:
    block = getattr(approximator, "block", None)
    return length * _linear_macs(approximator) if block is None else _block_macs(block, length)


def _linear_macs(module: nn.Module) -> float:
    return float(
        sum(layer.in_features * layer.out_features for layer in module.modules() if isinstance(layer, nn.Linear))
    )


def _attention_width(block: nn.Module) -> int:
    proj = block.get_submodule("attn.proj")
    assert isinstance(proj, nn.Linear)
    return proj.in_features


def _ends_macs(vit: VisionTransformer) -> float:
    """Patch embedding and head, counted on the meta device by running them: once a network, for training asks
    at every step."""
    known, patches = _ENDS.setdefault(vit, {}), int(vit.patch_embed.num_patches)
    if patches not in known:
        parts = copy.deepcopy(vit).to("meta").eval().requires_grad_(False)
        image = backbones.zero_images(parts, 1, "meta")
        tokens = torch.empty(1, patches + int(vit.num_prefix_tokens), vit.embed_dim, device="meta")
        known[patches] = count_macs(lambda: (backbones.embed(parts, image), backbones.classify(parts, tokens)))
    return known[patches]


def count_macs(run: Callable[[], object]) -> float:
    """MACs of whatever `run` executes, counted operator by operator (half of PyTorch's flop counter)."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops()) / 2
