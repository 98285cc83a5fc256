"""Which tokens each stage used for an image, as the deployed model (fixed path) chooses them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tofe_export.checkpoints.checkpoint import Checkpoint
from tofe_export.data.images import Batch
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.documents.manifest import Manifest
from tofe_export.errors import CheckFailedError, InputError
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.outputs import SparseOutput, best_class
from tofe_export.model.selection import Layout, kept_masks
from tofe_export.model.tofe import ToFe


@dataclass(frozen=True)
class TokenMap:
    """One image and what became of its tokens.

    Attributes:
        name: of the image.
        pixels: uint8 [H, W, 3], the crop that the model saw.
        kept: bool [S, h, w], on the model's grid of patches: the token went through the blocks of the stage.
        reused: bool [S, h, w], the part of `kept` that an earlier stage had frozen.
        counts: tokens that each stage would keep of this image by the threshold rule (score > 0); empty where the
            network has no threshold.
        predicted: class index.
        predicted_by_threshold: class index of the threshold path; None without one.
        label: class index, or None when the image has none.
    """

    name: str
    pixels: NDArray[np.uint8]
    kept: NDArray[np.bool_]
    reused: NDArray[np.bool_]
    counts: tuple[int, ...]
    predicted: int
    predicted_by_threshold: int | None
    label: int | None


@dataclass(frozen=True)
class ReuseSummary:
    """Over many images on the fixed path.

    Attributes:
        images: how many.
        per_stage: mean number of tokens per image that the stage kept after an earlier stage had frozen them.
        ever: mean number of tokens per image that some stage used after an earlier one had frozen them.
    """

    images: int
    per_stage: tuple[float, ...]
    ever: float


@torch.inference_mode()
def token_maps(checkpoint: Checkpoint, keep: tuple[int, ...], batches: Iterable[Batch]) -> list[TokenMap]:
    """One map per image of `batches`, which `checkpoint.preprocessing` has prepared.

    Raises:
        InputError: keep counts that do not fit the model.
    """
    model = checkpoint.model
    rows, columns = model.vit.patch_embed.grid_size
    maps: list[TokenMap] = []
    for batch in batches:
        fixed = model.forward_fixed(batch.images, FixedPath(keep))
        masks = kept_in_stages(model, fixed, keep)
        kept, again = _on_grid(masks, (rows, columns))
        singles = model.forward_threshold(batch.images) if model.has_threshold else [None] * len(batch.names)
        for place, single in enumerate(singles):
            maps.append(
                TokenMap(
                    name=batch.names[place],
                    pixels=to_pixels(batch.images[place], checkpoint.preprocessing),
                    kept=kept[place],
                    reused=again[place],
                    counts=tuple(int((trace.scores > 0).sum()) for trace in (single.stages if single else ())),
                    predicted=int(best_class(fixed.logits)[place]),
                    predicted_by_threshold=int(best_class(single.logits)) if single else None,
                    label=None if batch.labels is None else int(batch.labels[place]),
                )
            )
    return maps


@torch.inference_mode()
def summarize_reuse(model: ToFe, keep: tuple[int, ...], batches: Iterable[Batch]) -> ReuseSummary:
    """How many tokens come back, averaged over `batches`.

    Raises:
        InputError: keep counts that do not fit the model, or no image.
    """
    images, ever = 0, 0
    per_stage = torch.zeros(len(keep), dtype=torch.int64)
    for batch in batches:
        again = reused(kept_in_stages(model, model.forward_fixed(batch.images, FixedPath(keep)), keep))
        images += len(batch.names)
        per_stage += again.sum(dim=(0, 2))
        ever += int(again.any(dim=1).sum())
    if not images:
        raise InputError("There is no image to look at.", "Name a folder with images.", code="no-images")
    return ReuseSummary(images, tuple(int(total) / images for total in per_stage), ever / images)


def maps_of(
    batch: Batch,
    perms: Mapping[int, Tensor],
    keep: tuple[int, ...],
    layout: Layout,
    grid: tuple[int, int],
    preprocessing: Preprocessing,
    predicted: Sequence[int],
) -> list[TokenMap]:
    """One map per image of what a deployed model chose, which knows nothing of thresholds and labels.

    Args:
        batch: the images as the model got them.
        perms: see `kept_masks`.
        keep: keep count of each stage.
        layout: how the model's tokens lie between stages.
        grid: rows and columns of patches.
        preprocessing: of the images.
        predicted: class index of each.

    Raises:
        CheckFailedError: a stage did not rank its tokens.
    """
    _require_ranks(perms, keep, layout)
    kept, again = _on_grid(_masks(perms, keep, layout, len(batch.names)), grid)
    return [
        TokenMap(
            name=name,
            pixels=to_pixels(batch.images[place], preprocessing),
            kept=kept[place],
            reused=again[place],
            counts=(),
            predicted=predicted[place],
            predicted_by_threshold=None,
            label=None,
        )
        for place, name in enumerate(batch.names)
    ]


def _on_grid(kept: Tensor, grid: tuple[int, int]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Kept and reused tokens, bool [B, S, h, w], from the kept ones [B, S, N]."""
    kept_there, reused_there = (mask.reshape(*mask.shape[:2], *grid).numpy() for mask in (kept, reused(kept)))
    return kept_there, reused_there


def _require_ranks(perms: Mapping[int, Tensor], keep: Sequence[int], layout: Layout) -> None:
    """Each stage ranks the tokens that it gets, unless it keeps all of them."""
    width = layout.tokens
    for stage, count in enumerate(keep):
        if stage not in perms and count >= width:
            continue
        ranked = perms[stage].long().sort(dim=1).values if stage in perms else torch.empty(1, 0)
        if not torch.equal(ranked, torch.arange(width).expand(len(ranked), -1)):
            raise CheckFailedError(
                f"Stage {stage} of the file does not rank the {width} tokens that it gets.",
                "Export it again, and verify it.",
                code="not-ranked",
                stage=stage,
            )
        width = count + layout.fused if layout.discarded else width


def patch_grid(manifest: Manifest) -> tuple[int, int]:
    """Rows and columns of patches, which are square unless the network's arguments say otherwise.

    Raises:
        InputError: the manifest's tokens do not fill its images.
    """
    images, patch = manifest.preprocessing, manifest.config.backbone_args.get("patch_size")
    ratio = images.height / images.width
    if isinstance(patch, list) and len(patch) == 2 and all(isinstance(side, int) and side > 0 for side in patch):
        ratio *= patch[1] / patch[0]  # type: ignore[operator]
    rows = max(1, round(math.sqrt(manifest.tokens * ratio)))
    columns = round(rows / ratio)
    if rows * columns != manifest.tokens:
        raise InputError(
            f"{manifest.tokens} tokens do not fill an image of {images.height} x {images.width} pixels.",
            "Export the model again.",
            code="patch-grid",
            tokens=manifest.tokens,
        )
    return rows, columns


def kept_in_stages(model: ToFe, fixed: SparseOutput, keep: tuple[int, ...]) -> Tensor:
    """bool [B, S, N] in spatial order: the tokens that each stage kept."""
    perms = {trace.index: trace.perm for trace in fixed.stages}
    layout = Layout.of(model.config.approximator, model.tokens, rearranged=True)
    return _masks(perms, keep, layout, len(fixed.logits))


def _masks(perms: Mapping[int, Tensor], keep: tuple[int, ...], layout: Layout, images: int) -> Tensor:
    if not perms:  # every stage keeps everything, so nothing was selected
        return torch.ones(images, len(keep), layout.tokens, dtype=torch.bool)
    return torch.stack(kept_masks(perms, keep, layout), dim=1)


def reused(kept: Tensor) -> Tensor:
    """The tokens that a stage kept and some earlier stage had frozen, none in the first: bool [B, S, N], as `kept`."""
    always = kept.cumprod(dim=1).bool()  # kept by this stage and by every earlier one
    return kept & ~always


def to_pixels(image: Tensor, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Undoes the normalization: float [3, H, W] -> uint8 [H, W, 3]."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    pixels: NDArray[np.uint8] = ((image * std + mean).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return pixels
