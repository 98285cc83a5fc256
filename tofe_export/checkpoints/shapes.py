"""Which backbone a flat state dict belongs to, as far as names and shapes of its weights tell."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import timm
from torch import Tensor

from tofe_export.checkpoints.own_word import Assumption
from tofe_export.errors import InputError

_BLOCK = re.compile(r"blocks\.(\d+)\.")
_PLAIN = {(192, 12): "tiny", (384, 12): "small", (768, 12): "base", (1024, 24): "large"}
SIZES = {width: size for (width, _), size in _PLAIN.items()}
"""Channels -> the size in timm's names of a ViT."""
_LVVIT = {(240, 12): "lvvit_t", (384, 16): "lvvit_s", (512, 20): "lvvit_m", (768, 24): "lvvit_l"}
_DEIT = ("tiny", "small", "base")
_MORE = ("reg_token", "norm_pre.", "fc_norm.", "attn_pool.", ".ls1.", ".q_norm.", ".attn.gate.", "patch_embed.norm.")
"""Parts that several families have, each with more that no shape shows (activations, eps)."""
_SIZE = 224
_HEADS = {1280: 16, 1408: 16}  # where they are not 64 channels wide in the usual networks


def backbone_name(weights: Mapping[str, Tensor], source: str) -> str:
    """timm's name of the backbone: `deit_*`, `vit_*` or `lvvit_*`.

    DeiT and ViT of one size have the same weights; the name says DeiT. The weights are those without the predictors of
    a method.

    Raises:
        InputError: names and shapes do not tell.
    """
    blocks = {int(match[1]) for match in map(_BLOCK.match, weights) if match}
    if not blocks or not any("patch_embed." in key for key in weights):
        raise InputError(
            f"{source} holds no vision transformer under names that are known here; its first: "
            f"{', '.join(list(weights)[:3])}.",
            "Save one under timm's names. Of other libraries, docs/checkpoints.md says which are read.",
            code="backbone-unknown",
            path=source,
        )
    positions, patches = weights.get("pos_embed"), weights.get("patch_embed.proj.weight")
    more = next((part for part in _MORE if any(part in key for key in weights)), None)
    needed = ("pos_embed", "patch_embed.proj.weight", "cls_token")
    lacking = next((name for name in needed if name not in weights), None if blocks else "blocks")
    if lacking or positions is None or patches is None or positions.ndim != 3 or patches.ndim != 4 or more:
        raise _unknown(source, f"it has {more.strip('.')}" if more else f"it has no usable {lacking or 'pos_embed'}")
    size = (positions.shape[2], max(blocks) + 1)
    if is_lvvit(weights):
        name = _LVVIT.get(size)
    else:
        word, patch = _PLAIN.get(size), patches.shape[-1]
        distilled = "_distilled" if "dist_token" in weights else ""
        family = "deit" if distilled or (word in _DEIT and patch == 16) else "vit"
        name = f"{family}_{word}{distilled}_patch{patch}_{_SIZE}"
        name = name if word and timm.is_model(name) else None
    if name is None:
        raise _unknown(source, f"{size[0]} channels, {size[1]} blocks and patches of {patches.shape[-1]}")
    return name


def arguments_of(weights: Mapping[str, Tensor]) -> tuple[dict[str, Any], Assumption]:
    """Every argument of `timm.create_model` that the shapes of a ViT under timm's names show, and what they do not.

    The weights have a CLS token, position embeddings for a square, a patch embedding and a first block.
    """
    patch, positions = weights["patch_embed.proj.weight"], weights["pos_embed"]
    width, side = int(patch.shape[0]), int(patch.shape[-1])
    rows = math.isqrt(max(0, int(positions.shape[1]) - 1 - ("dist_token" in weights)))
    hidden, head = weights.get("blocks.0.mlp.fc1.weight"), weights.get("head.weight")
    heads = _HEADS.get(width, max(1, width // 64))
    arguments: dict[str, Any] = {
        "img_size": rows * side,
        "patch_size": side,
        "embed_dim": width,
        "depth": 1 + max((int(match[1]) for match in map(_BLOCK.match, weights) if match), default=-1),
        "num_heads": heads,
        "mlp_ratio": 4.0 if hidden is None else hidden.shape[0] / width,
        "qkv_bias": "blocks.0.attn.qkv.bias" in weights,
        "num_classes": 0 if head is None else int(head.shape[0]),
    }
    sentence = (
        f"Its attention is taken to have {heads} heads, of {width // heads} channels each; shapes do not show it."
    )
    return arguments, Assumption(sentence, ("num_heads", "backbone"))


def arguments(weights: Mapping[str, Tensor], name: str, given: tuple[int, int] | None, source: str) -> dict[str, Any]:
    """What `timm.create_model` requires beside the name: number of classes and image size, where not the usual.

    A file without a head has no classes.

    The (height, width) that the user gives is needed only where the tokens form no square.

    Raises:
        InputError: the position embedding fits no image that is known.
    """
    known: dict[str, Any] = {}
    head = weights.get("head.weight")
    if head is not None and head.ndim == 2:
        known["num_classes"] = int(head.shape[0])
    elif head is None and not is_lvvit(weights):
        known["num_classes"] = 0
    patches, positions = weights.get("patch_embed.proj.weight"), weights.get("pos_embed")
    if patches is None or positions is None or patches.ndim != 4 or positions.ndim != 3:
        return known
    patch = int(patches.shape[-1]) * (2 if is_lvvit(weights) else 1)  # LV-ViT's stem has halved the image before
    leading = (weights.get(name) for name in ("cls_token", "dist_token", "reg_token"))
    prefix = sum(token.shape[1] for token in leading if token is not None and token.ndim == 3)
    tokens = int(positions.shape[1]) - prefix
    for count in (tokens, tokens + prefix):  # some families (DeiT III) give prefix tokens no position
        side = math.isqrt(max(0, count))
        if side and side * side == count:
            return known | ({} if side * patch == _usual_size(name) else {"img_size": side * patch})
    if given is None or (given[0] // patch) * (given[1] // patch) != tokens:
        raise InputError(
            f"The {tokens} patch tokens of {source} form no square, so its image size is unknown.",
            f"Give it: `image_size`, height and width, with patches of {patch} pixels.",
            code="image-size-unknown",
            tokens=tokens,
        )
    return known | {"img_size": list(given)}


def _usual_size(name: str) -> int:
    """Pixels a side that timm's network of this name takes, unless told otherwise."""
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return _SIZE if config is None else int(config.input_size[-1])


def is_lvvit(weights: Mapping[str, Tensor]) -> bool:
    """Whether the patch embedding is LV-ViT's stem of convolutions."""
    return "patch_embed.conv1.weight" in weights


def _unknown(source: str, reason: str) -> InputError:
    return InputError(
        f"The shapes in {source} do not tell which backbone they belong to ({reason}).",
        "Name it as timm does: `backbone`, with `backbone_args` where it was built with other than the usual ones.",
        code="backbone-unknown",
        path=source,
    )
