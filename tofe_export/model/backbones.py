"""timm's vision transformers and LV-ViT, taken apart at their seams: embed, blocks, head. Nothing is copied."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, cast

import timm
import torch
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torch import Tensor, nn

from tofe_export.errors import InputError, MissingError, nearest
from tofe_export.model.blocks import can_split, run_step
from tofe_export.model.families import CLASSES, Backbone, freezable_names, module_of, require_family, require_freezable
from tofe_export.model.lvvit import LVViT
from tofe_export.model.positions import positions_of

_DEEPEST = 1000  # blocks; the deepest vision transformers have some forty


def create_backbone(name: str, arguments: Mapping[str, Any], pretrained: bool = False) -> Backbone:
    """A network of one of `families.CLASSES` by its name in timm, or an LV-ViT (`lvvit_*`).

    `arguments` are keyword arguments of `timm.create_model`; `pretrained` downloads timm's weights.

    Raises:
        InputError: unknown name, a network of another family, or arguments it does not take.
        MissingError: the weights cannot be downloaded here.
    """
    if not timm.is_model(name):
        raise InputError(
            f"timm has no backbone called {name!r}.",
            f"Nearest: {nearest(name, freezable_names())}.",
            code="unknown-backbone",
            name=name,
        )
    require_family(name)
    if pretrained and not timm.is_model_pretrained(name):
        raise InputError(
            f"timm has no pretrained weights for {name}.",
            "Omit `pretrained`, or choose another backbone.",
            code="no-pretrained-weights",
            name=name,
        )
    check_arguments(name, arguments)
    try:
        vit = timm.create_model(name, pretrained=False, **arguments)
    except InputError:  # of `AtMost`
        raise
    except Exception as error:  # whatever a network raises for numbers that do not fit each other
        why = str(error).partition("\n")[0]  # PyTorch adds a stack of C++ to some
        raise InputError(
            f"{name} cannot be built with {dict(arguments)}: {why}",
            "Correct `backbone_args`.",
            code="backbone-args",
            name=name,
        ) from error
    require_freezable(vit, name)
    return _with_pretrained(name, arguments) if pretrained else vit


def check_arguments(name: str, arguments: Mapping[str, Any]) -> None:
    """Raises InputError unless all are plain values of the network's own arguments.

    They may come from a file of weights, and `timm.create_model` takes others too, which read files (`checkpoint_path`)
    or move the network elsewhere (`device`).
    """
    kinds = [kind for kind in CLASSES[module_of(name)].__mro__ if kind.__module__.startswith(("timm.", "tofe_export."))]
    parameters = {key: one for kind in kinds for key, one in inspect.signature(kind).parameters.items()}
    known = parameters.keys() - {"self", "options", "device", "dtype"}
    for argument, value in arguments.items():
        if argument not in known:
            raise InputError(
                f"{name} has no argument {argument!r}.",
                f"Nearest: {nearest(str(argument), known)}.",
                code="unknown-backbone-argument",
                name=argument,
            )
        parts = value if isinstance(value, (list, tuple)) else [value]
        if not all(part is None or isinstance(part, (bool, int, float, str)) for part in parts):
            raise InputError(
                f"The argument {argument!r} of {name} is not a plain number, word or list.",
                "Correct `backbone_args`.",
                code="backbone-argument-kind",
                name=argument,
            )
        # timm takes any word for true.
        if parameters[argument].annotation in (bool, "bool") and not isinstance(value, bool):
            raise InputError(
                f"The argument {argument!r} of {name} is {value!r}.",
                f"Write {argument}=true or false.",
                code="backbone-argument-kind",
                name=argument,
            )
    depth = arguments.get("depth", 1)
    if isinstance(depth, (int, float)) and depth > _DEEPEST:
        raise InputError(
            f"No backbone here has more than {_DEEPEST} blocks.",
            f"Give a depth of at most {_DEEPEST}.",
            code="backbone-too-deep",
        )
    if arguments.get("in_chans", 3) != 3:
        raise InputError("Images have three channels here, so in_chans must be 3.", "Omit in_chans.", code="in-chans")


def _with_pretrained(name: str, arguments: Mapping[str, Any]) -> Backbone:
    try:
        vit: Backbone = timm.create_model(name, pretrained=True, **arguments)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"The pretrained weights of {name} do not fit {dict(arguments)}: {str(error).splitlines()[0]}",
            "Omit `backbone_args` or `pretrained`.",
            code="pretrained-weights-do-not-fit",
            name=name,
        ) from error
    except Exception as error:  # the hub client raises many unrelated types when there is no network
        raise MissingError(
            f"The pretrained weights of {name} could not be downloaded ({type(error).__name__}).",
            "Connect to a network, or fill the Hugging Face cache, or omit `pretrained`.",
            code="download",
            name=name,
        ) from error
    return vit


def embed(vit: Backbone, images: Tensor) -> Tensor:
    """Images [B, 3, H, W] to tokens [B, P+N, C], as the backbone's own forward does before its blocks."""
    patches = vit.patch_embed(images)
    if isinstance(vit, Eva):
        tokens: Tensor = vit.norm_pre(vit._pos_embed(patches)[0])
    elif isinstance(vit, (Beit, VisionTransformerRelPos)):
        leading = [] if vit.cls_token is None else [vit.cls_token.expand(patches.shape[0], -1, -1)]
        tokens = torch.cat([*leading, patches], dim=1)
        if isinstance(vit, Beit):
            tokens = vit.pos_drop(tokens if vit.pos_embed is None else tokens + vit.pos_embed)
    else:
        tokens = vit.norm_pre(vit.patch_drop(vit._pos_embed(patches)))
    return tokens


def classify(vit: Backbone, normed: Tensor, alive: Tensor | None = None) -> Tensor:
    """Tokens [B, L, C] after the final norm to logits [B, classes]; a CLS head needs only their prefix rows.

    `alive` [B, N] is 0.0 where a patch token no longer exists; None if all do.
    """
    if isinstance(vit, LVViT):
        return vit.forward_head(normed, alive=alive)
    logits: Tensor = vit.forward_head(normed)
    return logits


def head_reads_prefix_only(vit: Backbone) -> bool:
    """Whether the classifier looks at prefix tokens alone (a CLS head), so that the last stage can be cut."""
    return not isinstance(vit, LVViT) and getattr(vit, "attn_pool", None) is None and vit.global_pool == "token"


def heads(block: nn.Module) -> int:
    """How many heads a block's attention has."""
    return next(int(part.num_heads) for part in cast(Any, block).modules() if hasattr(part, "num_heads"))


def has_attention_weights(vit: Backbone) -> bool:
    """Whether every block can be run half by half, so that its attention weights are at hand."""
    return all(can_split(block) for block in vit.blocks)


def dense_tokens(vit: Backbone, images: Tensor, ends: Iterable[int]) -> tuple[Tensor, list[Tensor]]:
    """Dense logits [B, classes], and the tokens [B, P+N, C] after the blocks before each of `ends`."""
    tokens = embed(vit, images)
    wanted, at_ends, depth = set(ends), [], len(vit.blocks)
    read = int(vit.num_prefix_tokens) if head_reads_prefix_only(vit) and depth not in wanted else None
    for index, step in enumerate(positions_of(vit).steps(range(depth)), start=1):
        tokens = run_step(step, tokens, rows=read if index == depth else None)
        if index in wanted:
            at_ends.append(tokens)
    return classify(vit, vit.norm(tokens)), at_ends


def image_shape(vit: Backbone) -> tuple[int, int, int]:
    """(channels, height, width) the backbone takes."""
    height, width = vit.patch_embed.img_size  # `create_backbone` always sets one
    return 3, int(height), int(width)  # `check_arguments` allows no other number of channels


def zero_images(vit: Backbone, batch: int, device: torch.device | str = "cpu") -> Tensor:
    """A batch of zero images of the backbone's own size."""
    return torch.zeros(batch, *image_shape(vit), device=device)
