"""Weights under other names than timm's: which code they come from, and the same weights under timm's names.

Where timm has a converter it is used: its `checkpoint_filter_fn` (OpenAI's CLIP and OpenCLIP, DINOv2, DINOv3, EVA, PE
and others in their authors' names) and its reader of JAX archives (AugReg, big_vision).
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from tofe_export.checkpoints import huggingface
from tofe_export.checkpoints.own_word import Assumption, Told
from tofe_export.checkpoints.shapes import SIZES, arguments_of
from tofe_export.checkpoints.tensors import count_held
from tofe_export.errors import InputError
from tofe_export.model.allocation import AtMost
from tofe_export.model.backbones import create_backbone

_SIZES = {**SIZES, 1280: "huge"}
_IMAGES = Assumption("Images are prepared as for the published networks of this kind.", ("backbone",))


@dataclass(frozen=True)
class Named:
    """What the user says: timm's name of the network, and arguments of `timm.create_model`."""

    backbone: str | None
    arguments: Mapping[str, Any]


Weights = Mapping[str, Tensor]
Reader = Callable[[Weights, Path, Named], tuple[dict[str, Tensor], Told]]


def read_layout(weights: Weights, path: Path, named: Named) -> tuple[dict[str, Tensor], Told] | None:
    """The weights under timm's names, and what their layout tells; None where they may have those names already.

    Raises:
        InputError: they have the names of a layout, but not all of its parts in their usual shapes.
    """
    read = next((read for known, read in _READERS if known(weights)), None)
    if read is None:
        return None
    try:
        return read(weights, path, named)
    except (IndexError, KeyError, ValueError, TypeError, RuntimeError, ArithmeticError) as error:  # an unusual shape
        raise _incomplete(path, "another library", "parts of its usual shapes") from error


def renamed_by_timm(weights: Weights, name: str, arguments: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """The weights as timm's own converter of the network `name` leaves them, where they fit the network only then.

    None where they have its names already, where there is no converter, or where it does not make them fit.
    """
    try:
        with torch.device("meta"):
            model = create_backbone(name, arguments)
    except InputError:  # it is built, and refused, later
        return None
    expected = model.state_dict().keys()
    convert = getattr(sys.modules[timm.model_entrypoint(name).__module__], "checkpoint_filter_fn", None)
    if convert is None or expected <= weights.keys():
        return None
    # By its mask token timm knows DINOv2, and `unwrap` has left that out.
    for more in ({}, {"mask_token": torch.zeros(1, int(model.embed_dim))}):
        try:
            converted = convert({**weights, **more}, model)
        except Exception:  # converters assume the names that they know, and fail in any way on others
            continue
        if expected <= converted.keys():
            return dict(converted)  # what is too many is refused later, by its name
    return None


def _read_hugging_face(weights: Weights, path: Path, named: Named) -> tuple[dict[str, Tensor], Told]:
    return huggingface.as_timm(weights, path)


_TORCHVISION = "encoder.layers.encoder_layer_0.self_attention.in_proj_weight"
_OF_TORCHVISION = (
    (r"conv_proj\.", "patch_embed.proj."),
    (r"class_token", "cls_token"),
    (r"encoder\.pos_embedding", "pos_embed"),
    (r"encoder\.ln\.", "norm."),
    (r"heads\.(?:head\.)?", "head."),
    (r"encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.ln_", ".norm"),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(?:0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(?:3|linear_2)\.", ".mlp.fc2."),
)


def _is_torchvision(weights: Weights) -> bool:
    return any(key.endswith(_TORCHVISION) for key in weights)


def _read_torchvision(weights: Weights, path: Path, named: Named) -> tuple[dict[str, Tensor], Told]:
    prefix = next(key for key in weights if key.endswith(_TORCHVISION)).removesuffix(_TORCHVISION)
    renamed = {}
    for key, value in weights.items():
        name = key.removeprefix(prefix)
        for pattern, ours in _OF_TORCHVISION:
            name = re.sub(pattern if pattern.startswith(r"\.") else f"^{pattern}", ours, name)
        renamed[name] = value
    _require(renamed, path, "torchvision's ViT")
    arguments, heads = arguments_of(renamed)
    images = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "interpolation": "bilinear"}
    told = Told(
        _vit_name(arguments),
        arguments,
        {**images, "crop_pct": 224 / 256, "crop_mode": "center"},
        "the names of torchvision",
        assumed=(heads, _IMAGES),
    )
    return renamed, told


_CLIP = re.compile(r"(?:.*\.)?visual\.class_embedding")


def _is_clip(weights: Weights) -> bool:
    return any(map(_CLIP.fullmatch, weights))


def _read_clip(weights: Weights, path: Path, named: Named) -> tuple[dict[str, Tensor], Told]:
    prefix = next(key for key in weights if _CLIP.fullmatch(key)).removesuffix("visual.class_embedding")
    visual = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(f"{prefix}visual.")}
    patch, projection = visual.get("visual.conv1.weight"), visual.get("visual.proj")
    positions = visual.get("visual.positional_embedding")
    if patch is None or positions is None or patch.ndim != 4 or positions.ndim != 2:
        raise _incomplete(path, "CLIP's image tower", "conv1 or positional_embedding")
    side, width = int(patch.shape[-1]), int(patch.shape[0])
    size = {**_SIZES, 1408: "giant", 1664: "gigantic"}.get(width)
    of_openai = f"{prefix}input_resolution" in weights  # OpenAI's archives hold the sizes as well
    pixels = side * int((positions.shape[0] - 1) ** 0.5)
    stem = f"vit_{size}_patch{side}_clip_"
    middle = "quickgelu_" if of_openai else ""
    name = next((n for n in (f"{stem}{middle}{pixels}", f"{stem}{middle}224") if timm.is_model(n)), None)
    chosen = named.backbone or name
    if chosen is None:
        raise _incomplete(
            path, "CLIP's image tower", f"known size ({width} channels, patches of {side})", nameable=True
        )
    arguments = {"img_size": pixels, "num_classes": 0 if projection is None else int(projection.shape[1])}
    converted = renamed_by_timm(visual, chosen, {**arguments, **named.arguments})
    if converted is None:
        raise _incomplete(path, "CLIP's image tower", f"weights of {chosen}", nameable=True)
    other = "quickgelu, as in OpenAI's networks" if of_openai else "GELU, as in most of OpenCLIP's networks"
    activation = Assumption(f"Its activation is taken for {other}; shapes do not show it.", ("backbone",))
    spare = len(weights) - len(visual)
    notes = (f"{spare} of its tensors belong to CLIP's text tower and were left out.",) if spare else ()
    return converted, Told(name, arguments, {}, "CLIP's names", notes, (activation, _IMAGES))


_JAX = re.compile(r"(?:opt/target/|params/(?:img/)?)?embedding/kernel")


def _is_jax(weights: Weights) -> bool:
    return any(map(_JAX.fullmatch, weights))


def _read_jax(weights: Weights, path: Path, named: Named) -> tuple[dict[str, Tensor], Told]:
    prefix = next(key for key in weights if _JAX.fullmatch(key)).removesuffix("embedding/kernel")
    inner = {key.removeprefix(prefix): value for key, value in weights.items()}
    kernel, head = inner["embedding/kernel"], inner.get("head/kernel")
    positions = inner.get("Transformer/posembed_input/pos_embedding", inner.get("pos_embedding"))
    blocks = {match[1] for key in inner if (match := re.match(r"Transformer/encoderblock_(\d+)/", key))}
    if kernel.ndim != 4 or positions is None or positions.ndim != 3 or not blocks:
        raise _incomplete(path, "a ViT of JAX", "usual embedding, positions or blocks")
    side, width = int(kernel.shape[0]), int(kernel.shape[-1])
    rows = int((positions.shape[1] - ("cls" in inner)) ** 0.5)
    arguments = {"img_size": rows * side, "num_classes": 0 if head is None else int(head.shape[-1])}
    name = f"vit_{_SIZES.get(width)}_patch{side}_224"
    guess = name if "cls" in inner and timm.is_model(name) and not any("conv_root" in key for key in inner) else None
    chosen = named.backbone or guess
    if chosen is None:
        raise _incomplete(path, "a ViT of JAX", f"known size ({width} channels, patches of {side})", nameable=True)
    if any(key.startswith("pre_logits/") for key in inner) and head is not None:  # which timm's networks have no more
        raise _incomplete(path, "a ViT of JAX with a layer before its classifier", "classifier on the features alone")
    held = count_held(weights)
    too_few = _incomplete(path, "a ViT of JAX", f"weights of {chosen}", nameable=True)
    try:
        with AtMost(held, too_few):
            model = create_backbone(chosen, {"depth": len(blocks), **arguments, **named.arguments})
        if len(model.blocks) != len(blocks):  # timm's reader takes the first ones
            raise too_few
        for value in model.parameters():  # timm's reader leaves alone what it does not find
            torch.nn.init.constant_(value, torch.nan)
        model.load_pretrained(str(path))
    except InputError:
        raise
    except Exception as error:  # whatever timm raises for an archive that is not this network's
        traceback.clear_frames(error.__traceback__)  # they hold the archive, which timm leaves open
        raise _incomplete(path, "a ViT of JAX", f"weights of {chosen}", nameable=True) from error
    found = {key: value for key, value in model.state_dict().items() if not value.isnan().all()}
    return found, Told(guess, {"depth": len(blocks), **arguments}, {}, "the names of JAX", assumed=(_IMAGES,))


def _vit_name(arguments: Mapping[str, Any]) -> str:
    """The nearest network that timm has; the arguments say all the rest."""
    named = f"vit_{_SIZES.get(arguments['embed_dim'], 'base')}_patch{arguments['patch_size']}_224"
    return named if timm.is_model(named) else "vit_base_patch16_224"


def _require(weights: Weights, path: Path, kind: str) -> None:
    needed = {"cls_token": 3, "pos_embed": 3, "patch_embed.proj.weight": 4, "blocks.0.mlp.fc1.weight": 2}
    lacking = next((name for name, axes in needed.items() if name not in weights or weights[name].ndim != axes), None)
    if lacking is not None:
        raise _incomplete(path, kind, lacking)


def _incomplete(path: Path, kind: str, lacking: str, nameable: bool = False) -> InputError:
    """`nameable`: with the network's name the file might be read."""
    return InputError(
        f"{path} has the names of {kind}, but no {lacking}.",
        "Name the network as timm does: `backbone`, with `backbone_args`."
        if nameable
        else "Save the whole network again, or save its weights under timm's names.",
        code="layout-incomplete",
        path=path,
    )


_READERS: tuple[tuple[Callable[[Weights], bool], Reader], ...] = (
    (huggingface.is_hugging_face, _read_hugging_face),
    (_is_torchvision, _read_torchvision),
    (_is_clip, _read_clip),
    (_is_jax, _read_jax),
)
