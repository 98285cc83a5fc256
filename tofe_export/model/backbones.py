"""timm's plain vision transformers, taken apart at their own seams: embed, blocks, head. Nothing is copied."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import timm
import torch
from timm.layers import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from tofe_export.errors import InputError, MissingError, nearest


def create_backbone(name: str, arguments: Mapping[str, Any], pretrained: bool = False) -> VisionTransformer:
    """A timm plain ViT (`vit_*`, `deit_*`, distilled, with registers) by name.

    Args:
        name: timm model name.
        arguments: keyword arguments of `timm.create_model`.
        pretrained: download timm's weights.

    Raises:
        InputError: unknown name, no plain ViT, or arguments it does not take.
        MissingError: the weights cannot be downloaded here.
    """
    if not timm.is_model(name):
        raise InputError(f"timm has no backbone called {name!r}.", f"Nearest: {nearest(name, timm.list_models())}.")
    if pretrained and not timm.is_model_pretrained(name):
        raise InputError(
            f"timm has no pretrained weights for {name}.", "Leave --pretrained away, or choose another backbone."
        )
    check_arguments(arguments)
    try:
        vit = timm.create_model(name, pretrained=False, **arguments)
    except Exception as error:  # whatever a network raises for numbers that do not fit each other
        raise InputError(f"{name} cannot be made with {dict(arguments)}: {error}", "Mend --backbone-args.") from error
    _require_plain(vit, name)
    return _with_pretrained(name, arguments) if pretrained else vit


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Raises InputError unless all are plain values of the network's own arguments.

    They may come from a file of weights, and `timm.create_model` takes others too, which read files (`checkpoint_path`)
    or move the network elsewhere (`device`).
    """
    known = set(inspect.signature(VisionTransformer.__init__).parameters) - {"self", "device", "dtype"}
    for name, value in arguments.items():
        if name not in known:
            raise InputError(f"A backbone has no argument {name!r}.", f"Nearest: {nearest(str(name), known)}.")
        parts = value if isinstance(value, (list, tuple)) else [value]
        if not all(part is None or isinstance(part, (bool, int, float, str)) for part in parts):
            raise InputError(f"The backbone's argument {name!r} is no plain number, word or list.", "Mend it.")
    if arguments.get("in_chans", 3) != 3:
        raise InputError("Images have three channels here, so in_chans must be 3.", "Leave in_chans away.")


def _with_pretrained(name: str, arguments: Mapping[str, Any]) -> VisionTransformer:
    try:
        vit: VisionTransformer = timm.create_model(name, pretrained=True, **arguments)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"The pretrained weights of {name} do not fit {dict(arguments)}: {str(error).splitlines()[0]}",
            "Leave --backbone-args or --pretrained away.",
        ) from error
    except Exception as error:  # the hub client raises many unrelated types when there is no network
        raise MissingError(
            f"The pretrained weights of {name} could not be downloaded ({type(error).__name__}).",
            "Connect to a network, or fill the Hugging Face cache, or leave --pretrained away.",
        ) from error
    return vit


def _require_plain(vit: nn.Module, name: str) -> None:
    if not isinstance(vit, VisionTransformer):
        raise InputError(
            f"{name} is a {type(vit).__name__}, not a plain vision transformer.", "Use a vit_* or deit_* model of timm."
        )
    if not all("attn_mask" in inspect.signature(block.forward).parameters for block in vit.blocks):
        raise InputError(
            f"The blocks of {name} take no attention mask, so they cannot freeze tokens.", "Use another vit_* model."
        )
    if vit.attn_pool is None and vit.global_pool == "":
        raise InputError(f"{name} has no pooling: its head gives one row a token.", "Set global_pool to token or avg.")


def embed(vit: VisionTransformer, images: Tensor) -> Tensor:
    """Images [B, 3, H, W] to tokens [B, P+N, C], as the backbone's own forward does before its blocks."""
    tokens: Tensor = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images))))
    return tokens


def classify(vit: VisionTransformer, tokens: Tensor) -> Tensor:
    """Final tokens [B, L, C] to logits [B, classes]; a CLS head needs only the prefix rows in `tokens`."""
    logits: Tensor = vit.forward_head(vit.norm(tokens))
    return logits


def run_blocks(blocks: Iterable[nn.Module], tokens: Tensor, bias: Tensor | None = None) -> Tensor:
    """Tokens through `blocks`; `bias` [B, 1, 1, L] is added to the attention scores of every key."""
    for block in blocks:
        tokens = block(tokens) if bias is None else block(tokens, attn_mask=bias)
    return tokens


def head_reads_prefix_only(vit: VisionTransformer) -> bool:
    """Whether the classifier looks at prefix tokens alone (a CLS head), so that the last stage can be cut."""
    return vit.attn_pool is None and vit.global_pool == "token"


def dense_tokens(vit: VisionTransformer, images: Tensor, ends: Iterable[int]) -> tuple[Tensor, list[Tensor]]:
    """The dense forward pass, with the tokens after the blocks before each of `ends`.

    Returns:
        logits [B, classes] and, for each end, tokens [B, P+N, C].
    """
    tokens = embed(vit, images)
    wanted, found = set(ends), []
    for index, block in enumerate(vit.blocks, start=1):
        tokens = block(tokens)
        if index in wanted:
            found.append(tokens)
    return classify(vit, tokens), found


def can_cut_to_prefix(block: nn.Module) -> bool:
    """Whether `block_on_prefix` knows this block; others run whole, and their prefix rows are taken."""
    return type(block) is Block and type(block.attn) is Attention and getattr(block.attn, "gate", None) is None


def block_on_prefix(block: Block, tokens: Tensor, prefix: int) -> Tensor:
    """A timm `Block` evaluated for the first `prefix` rows only: they are the only queries.

    Every row still serves as key and value; projection and MLP run on the prefix rows. The same weights in the
    same order, so the result equals `block(tokens)[:, :prefix]` up to the order of floating-point sums.

    Args:
        tokens: [B, L, C].
        prefix: P >= 1.

    Returns:
        [B, P, C].
    """
    attention = block.attn
    heads, width = attention.num_heads, attention.head_dim
    inner = heads * width
    weight, bias = attention.qkv.weight, attention.qkv.bias
    normed = block.norm1(tokens)

    def project(rows: Tensor, start: int, stop: int) -> Tensor:
        out: Tensor = F.linear(rows, weight[start:stop], None if bias is None else bias[start:stop])
        return out.view(*out.shape[:2], -1, heads, width).permute(2, 0, 3, 1, 4)

    (query,) = project(normed[:, :prefix], 0, inner).unbind(0)
    key, value = project(normed, inner, 3 * inner).unbind(0)
    query, key = attention.q_norm(query) * attention.scale, attention.k_norm(key)
    mixed = (query @ key.transpose(-2, -1)).softmax(dim=-1) @ value
    mixed = mixed.transpose(1, 2).flatten(2)
    mixed = attention.proj(attention.norm(mixed) if hasattr(attention, "norm") else mixed)
    rows = tokens[:, :prefix] + block.ls1(mixed)
    out: Tensor = rows + block.ls2(block.mlp(block.norm2(rows)))
    return out


def run_blocks_to_prefix(blocks: Iterable[nn.Module], tokens: Tensor, prefix: int) -> Tensor:
    """The last stage under a CLS head: all blocks, the last one for the prefix rows alone. Inference only."""
    *first, last = list(blocks)
    tokens = run_blocks(first, tokens)
    if can_cut_to_prefix(last):
        assert isinstance(last, Block)
        return block_on_prefix(last, tokens, prefix)
    return run_blocks([last], tokens)[:, :prefix]


def explicit_attention(module: nn.Module) -> None:
    """Makes every attention in `module` spell out its softmax instead of calling fused attention.

    The explicit form exports to fewer ONNX nodes than the fused one and is what runtimes' fusions look for.
    """
    for child in module.modules():
        if hasattr(child, "fused_attn"):
            setattr(child, "fused_attn", False)  # noqa: B010 - a plain flag, though nn.Module types it as a tensor


def image_shape(vit: VisionTransformer) -> tuple[int, int, int]:
    """(channels, height, width) the backbone takes."""
    size = vit.patch_embed.img_size
    if size is None:
        raise InputError("The backbone has no fixed image size.", "Give img_size in --backbone-args.")
    projection = vit.patch_embed.proj
    assert isinstance(projection, nn.Conv2d)
    return projection.in_channels, int(size[0]), int(size[1])


def zero_images(vit: VisionTransformer, batch: int, device: torch.device | str = "cpu") -> Tensor:
    """A batch of zero images of the backbone's own size."""
    return torch.zeros(batch, *image_shape(vit), device=device)
