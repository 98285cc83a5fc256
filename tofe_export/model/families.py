"""Which of timm's networks can freeze tokens, and why the others cannot."""

from __future__ import annotations

import inspect
from typing import Any, TypeAlias

import timm
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torch import nn

from tofe_export.errors import InputError
from tofe_export.model.lvvit import LVViT

Backbone: TypeAlias = VisionTransformer | Eva | Beit | VisionTransformerRelPos
"""A vision transformer whose tokens keep their number and their meaning from the first block to the last."""

CLASSES: dict[str, type[Any]] = {
    "vision_transformer": VisionTransformer,
    "deit": VisionTransformer,
    "vision_transformer_hybrid": VisionTransformer,
    "lvvit": LVViT,
    "eva": Eva,
    "beit": Beit,
    "vision_transformer_relpos": VisionTransformerRelPos,
}
"""timm's modules (and ours) and the class of their networks."""

_GRID = "moves or merges tokens on the image's grid, of which a choice of tokens leaves holes"
_OF_LANGUAGE = "is the vision tower of a language model, without a classifier"
_NOT_ALL = "does not attend over all its tokens in every block"
_REASONS = {
    "cait": "mixes the attention maps of its heads and gives its class token blocks of its own",
    "xcit": "attends over channels and convolves tokens with their neighbors",
    "vision_transformer_sam": "attends in windows of the image's grid",
    "naflexvit": "takes patches of images of any size, padded to one length",
    **dict.fromkeys(("deepseek_vit", "gemma4_vit", "qwen3_vit"), _OF_LANGUAGE),
    **dict.fromkeys(("convit", "tnt", "crossvit", "volo", "mlp_mixer"), _NOT_ALL),
    **dict.fromkeys(
        (
            *("coat", "davit", "gcvit", "hiera", "hieradet_sam2", "levit", "maxxvit", "mobilevit", "mvitv2", "nest"),
            *("pit", "pvt_v2", "swin_transformer", "swin_transformer_v2", "swin_transformer_v2_cr", "tiny_vit"),
            *("twins", "visformer", "vitamin"),
        ),
        _GRID,
    ),
}
"""Of the modules whose networks have tokens too."""


def module_of(name: str) -> str:
    """The module that defines a registered network, without its package."""
    return str(timm.model_entrypoint(name).__module__.rpartition(".")[2])


def freezable_names() -> list[str]:
    """Every network that `require_freezable` may accept."""
    return [name for module in CLASSES for name in timm.list_models(module=module)]


def require_family(name: str) -> None:
    """Raises InputError unless timm's `name` is of a family that can freeze tokens."""
    module = module_of(name)
    if module not in CLASSES:
        why = _REASONS.get(module, "is another kind of network")
        raise _refused(name, why)


def require_freezable(built: nn.Module, name: str) -> None:
    """Raises InputError unless the network, built, can freeze tokens."""
    if not isinstance(built, tuple(CLASSES.values())):
        raise _refused(name, f"is a {type(built).__name__}")
    vit: Any = built
    relative = isinstance(vit, (Beit, VisionTransformerRelPos))  # whose biases take a mask in
    masks = relative or all("attn_mask" in inspect.signature(block.forward).parameters for block in vit.blocks)
    if not masks:
        raise InputError(
            f"The blocks of {name} take no attention mask, so they cannot freeze tokens.",
            "Use another vit_* model.",
            code="no-attention-mask",
            name=name,
        )
    if getattr(vit, "attn_pool", None) is None and vit.global_pool == "":
        raise InputError(
            f"{name} has no pooling: its head gives one row per token.",
            "Set global_pool to token or avg.",
            code="no-pooling",
            name=name,
        )


def _refused(name: str, why: str) -> InputError:
    return InputError(
        f"{name} {why}, so its tokens cannot be frozen.",
        "Use a vit_*, deit_*, eva02_*, beit_* or lvvit_* model.",
        code="not-a-plain-vit",
        name=name,
    )
