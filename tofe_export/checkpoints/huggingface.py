"""Vision transformers of Hugging Face's transformers as timm's: ViT, DeiT and DINOv2, in both layouts of their names.

The weights are the same under other names; query, key and value lie apart. The config.json beside a file says the shape
of its network, and preprocessor_config.json how its images were prepared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tofe_export.checkpoints.own_word import Assumption, Told, classes_by_number
from tofe_export.checkpoints.shapes import SIZES, arguments_of
from tofe_export.errors import InputError
from tofe_export.files.reading import read_json

_ANCHOR = "embeddings.patch_embeddings.projection.weight"
_NAMES = {
    "embeddings.cls_token": "cls_token",
    "embeddings.distillation_token": "dist_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
}
_IN_A_BLOCK = {
    "attention.output.dense": "attn.proj",
    "attention.o_proj": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "mlp.fc1": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "mlp.fc2": "mlp.fc2",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "norm1": "norm1",
    "norm2": "norm2",
    "layer_scale1": "ls1",
    "layer_scale2": "ls2",
}
_PARTS = {"query": 0, "key": 1, "value": 2, "q_proj": 0, "k_proj": 1, "v_proj": 2}
_BLOCK = re.compile(r"(?:encoder\.layer|layers)\.(\d+)\.(.+)\.(weight|bias|lambda1)")
_ATTENTION = re.compile(r"attention\.(?:attention\.)?(query|key|value|q_proj|k_proj|v_proj)")
_HEADS = {"classifier": "head", "cls_classifier": "head", "distillation_classifier": "head_dist"}
_SPARE = re.compile(r"pooler\..+|embeddings\.mask_token|decoder\..+")
_RESAMPLING = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_USUAL: dict[str, dict[str, Any]] = {  # as the published networks of each family
    "vit": {**_HALF, "interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "squash"},
    "deit": {**_IMAGENET, "interpolation": "bicubic", "crop_pct": 224 / 256, "crop_mode": "squash"},
    "dinov2": {**_IMAGENET, "interpolation": "bicubic", "crop_pct": 224 / 256, "crop_mode": "center"},
}
_RESCALED = 1 / 255
_CONFIG, _PROCESSOR = "config.json", "preprocessor_config.json"


def is_hugging_face(weights: Mapping[str, Tensor]) -> bool:
    """Whether the patch embedding has the name that transformers gives it."""
    return any(key == _ANCHOR or key.endswith(f".{_ANCHOR}") for key in weights)


def as_timm(weights: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Tensor], Told]:
    """The weights in a file of transformers under timm's names, and what it says of their network.

    Raises:
        InputError: another family than ViT, DeiT and DINOv2, or a config.json that is damaged or of another network.
    """
    config, beside = path.with_name(_CONFIG), path.with_name(_PROCESSOR)
    said = read_json(config) if config.is_file() else {}
    renamed, notes = _renamed(weights, path)
    family = str(said.get("model_type") or _family(weights))
    if family not in _USUAL:
        raise InputError(
            f"{path} is a {family} of transformers, which this program cannot read.",
            "ViT, DeiT and DINOv2 are read; of other families take timm's own weights.",
            code="hugging-face-family",
            path=path,
        )
    if said.get("hidden_act", "gelu") != "gelu":
        raise InputError(
            f"{config} says that its activation is {said['hidden_act']}; timm's networks of this kind have GELU.",
            "Only networks with GELU can be read.",
            code="hugging-face-activation",
            path=path,
        )
    assumed = []
    if beside.is_file():
        images = _processed(read_json(beside), _USUAL[family])
    else:
        images = dict(_USUAL[family])
        missing = f"Without {_PROCESSOR} beside it, images are prepared as for the published {family}."
        assumed.append(Assumption(missing, ("backbone",)))
    backbone, arguments, heads = _network(family, renamed)
    if "num_attention_heads" in said:
        arguments["num_heads"] = said["num_attention_heads"]
    else:
        assumed.insert(0, heads)
    classes = classes_by_number(said.get("id2label"))
    return renamed, Told(backbone, arguments, images, "Hugging Face's transformers", notes, tuple(assumed), classes)


def _renamed(weights: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    anchor = next(key for key in weights if key.endswith(_ANCHOR))
    prefix = anchor.removesuffix(_ANCHOR)
    found: dict[str, Tensor] = {}
    attention: dict[str, dict[int, Tensor]] = {}
    heads: dict[str, Tensor] = {}
    for key, value in weights.items():
        inner = key.removeprefix(prefix)
        name, _, kind = inner.rpartition(".")
        block = _BLOCK.fullmatch(inner)
        if key.partition(".")[0] in _HEADS:
            heads[f"{_HEADS[key.partition('.')[0]]}.{kind}"] = value
        elif inner in _NAMES or name in _NAMES:
            found[_NAMES.get(inner) or f"{_NAMES[name]}.{kind}"] = value
        elif block is not None and (part := _ATTENTION.fullmatch(block[2])):
            attention.setdefault(f"blocks.{block[1]}.attn.qkv.{block[3]}", {})[_PARTS[part[1]]] = value
        elif block is not None and block[2] in _IN_A_BLOCK:
            found[f"blocks.{block[1]}.{_IN_A_BLOCK[block[2]]}.{block[3].replace('lambda1', 'gamma')}"] = value
        elif not _SPARE.fullmatch(inner):
            raise InputError(
                f"{path} has a part that is not known in this family: {key}.",
                "ViT, DeiT and DINOv2 of transformers are read; of others take timm's own weights.",
                code="hugging-face-family",
                path=path,
            )
    for name, parts in attention.items():
        if len(parts) == len(set(_PARTS.values())) and len({part.shape for part in parts.values()}) == 1:
            found[name] = torch.stack([parts[index] for index in sorted(parts)]).flatten(0, 1)
    needed = {"cls_token": 3, "pos_embed": 3, "patch_embed.proj.weight": 4}  # what else is missing is named later
    lacking = next((name for name, axes in needed.items() if name not in found or found[name].ndim != axes), None)
    if lacking is not None:
        raise InputError(
            f"{path} has no usable {lacking} (in timm's words).",
            "Save the whole network: save_pretrained.",
            code="hugging-face-family",
            path=path,
        )
    return _with_heads(found, heads)


def _with_heads(found: dict[str, Tensor], heads: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """With the classifiers that mean the same in timm: on the CLS token, and on the distillation token if any."""
    width, head = found["cls_token"].shape[-1], heads.get("head.weight")
    fits = head is None or (head.shape[-1] == width and ("dist_token" in found) == ("head_dist.weight" in heads))
    if fits:
        return found | heads, ()
    note = (
        "Its classifier reads other tokens than timm's and was left out: export features, or train with it as `init`."
    )
    return found, (note,)


def _family(weights: Mapping[str, Tensor]) -> str:
    if any("layer_scale1." in key for key in weights):
        return "dinov2"
    return "deit" if any(key.endswith("embeddings.distillation_token") for key in weights) else "vit"


def _network(family: str, weights: Mapping[str, Tensor]) -> tuple[str, dict[str, Any], Assumption]:
    arguments, heads = arguments_of(weights)
    size = SIZES.get(arguments["embed_dim"], "base")
    if family == "dinov2":
        return f"vit_{size}_patch14_dinov2", arguments, heads
    if "dist_token" in weights:
        return f"deit_{size if size != 'large' else 'base'}_distilled_patch16_224", arguments, heads
    return f"vit_{size}_patch16_224", arguments, heads


def _processed(said: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """What preprocessor_config.json says, in timm's words; what it does not say is the family's usual."""
    found = dict(usual)
    for name, theirs in (("mean", "image_mean"), ("std", "image_std")):
        if said.get(theirs):
            found[name] = said[theirs]
    if said.get("do_normalize") is False:
        found |= {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    if said.get("do_rescale") is False or abs(said.get("rescale_factor", _RESCALED) - _RESCALED) > 1e-6:
        raise InputError(
            "preprocessor_config.json says that pixels are not scaled to 0..1.",
            "Correct it, or remove it: then images are prepared as for the published network of this kind.",
            code="hugging-face-rescaling",
        )
    resample = said.get("resample")
    if isinstance(resample, int):
        found["interpolation"] = _RESAMPLING.get(resample, f"Pillow's number {resample}")  # refused by that name
    size = said.get("size")
    if size is None:
        return found
    shortest, height = _number(size, "shortest_edge"), _number(size, "height")
    if isinstance(size, (int, float)):  # one number is one or the other, by the family
        shortest, height = (float(size), None) if usual["crop_mode"] == "center" else (None, float(size))
    resized, cropped = shortest or height, _number(said.get("crop_size"), "height")
    found["crop_mode"] = "center" if shortest else "squash"
    found["crop_pct"] = min(1.0, cropped / resized) if said.get("do_center_crop") and cropped and resized else 1.0
    return found


def _number(size: object, name: str) -> float | None:
    value = size.get(name) if isinstance(size, Mapping) else size
    return float(value) if isinstance(value, (int, float)) and value > 0 else None
