"""The section on token maps: frozen tokens of held-out images veiled, kept ones clear, reused ones outlined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from tofe_export.checkpoints.checkpoint import Checkpoint
from tofe_export.data.images import ImageSource
from tofe_export.data.sources import class_note
from tofe_export.errors import count
from tofe_export.files.commands import quoted
from tofe_export.files.names import CHECKPOINT
from tofe_export.model.approximator import DISCARD, FUSE
from tofe_export.page.folder import RunFolder
from tofe_export.page.images import ShownImages
from tofe_export.page.labels import short
from tofe_export.page.pictures import REUSED, Canvas, Panel, picture_grid
from tofe_export.page.token_maps import ReuseSummary, TokenMap, summarize_reuse, token_maps

VEIL = (150, 150, 148)  # a middle gray, so that neither white nor black content passes for frozen
_VEIL_STRENGTH = 0.84
_SIDE_INCHES, _CAPTION_INCHES = 1.18, 0.5  # of one picture; the caption with what lies around it
_HIGHEST_INCHES = 320.0  # at 200 dots per inch


@dataclass(frozen=True)
class Gallery:
    """What the page shows.

    Attributes:
        maps: empty when there is nothing to show.
        reason: why there is nothing, or "".
        command: what makes it, or "".
        reuse: a sentence on how many tokens come back.
        source: where the images are from.
        notes: sentences on images that were replaced or skipped.
        classes: names of the network's outputs; empty where it has none.
        frozen: what becomes of frozen tokens; see `fate_of_frozen`.
    """

    maps: list[TokenMap] = field(default_factory=list)
    reason: str = ""
    command: str = ""
    reuse: str = ""
    source: str = ""
    notes: list[str] = field(default_factory=list)
    classes: tuple[str, ...] = ()
    frozen: str = "estimated"


def gallery(run: RunFolder, images: ShownImages | None) -> Gallery:
    """Token maps of `images`, evenly spread over their source, or why there are none.

    Raises:
        InputError: not one image can be read.
    """
    if run.checkpoint is None:
        return Gallery(reason=f"There is no {CHECKPOINT} here to look into. Copy the checkpoint here under that name.")
    if images is None:
        return Gallery(reason="The page was written without pictures.", command=run.commands["pictures"])
    keep = run.keep_counts()
    if keep is None and not run.checkpoint.model.stages:
        return Gallery(reason="The network is dense, so it selects no tokens.")
    if keep is None:
        known = run.checkpoint.model.has_threshold
        counts = f"--keep-from {quoted(run.checkpoint.data or 'photos')}" if known else "--keep-rate 0.7"
        return Gallery(
            reason="The checkpoint holds no learned keep ratios, and no model was exported.",
            command=f"{run.commands['onnx']} {counts}",
        )
    source = images.source
    classes = _class_names(run.checkpoint, source)
    maps = token_maps(run.checkpoint, keep, images.shown("Token maps"))
    if source.classes != classes:  # a label counts only where it means what the network's output of that number means
        maps = [replace(token_map, label=None) for token_map in maps]
    reuse = summarize_reuse(run.checkpoint.model, keep, images.averaged("Reused tokens"))
    notes = [images.note, class_note(source, classes) if source.classes else ""]
    return Gallery(
        maps=maps,
        reuse=_reuse_sentence(reuse, run.checkpoint),
        source=source.name,
        notes=[note for note in notes if note] + (images.log.lines() if images.log.left_out else []),
        classes=classes,
        frozen=fate_of_frozen(run.checkpoint.model.config.approximator),
    )


def stage_picture(token_map: TokenMap, stage: int | None) -> Image.Image:
    """The image as one stage sees it; without a stage the image itself, enlarged as they are."""
    canvas = Canvas(token_map.pixels, token_map.kept.shape[1:])
    if stage is None:
        return canvas.image
    veiled = canvas.gray + (np.array(VEIL) - canvas.gray) * _VEIL_STRENGTH
    values = np.where(canvas.spread(token_map.kept[stage])[..., None], canvas.values, veiled)
    return canvas.outlined(values, token_map.reused[stage], share=10)


def token_map_figure(
    maps: Sequence[TokenMap], classes: Sequence[str] = (), columns: int = 1, frozen: str = "estimated"
) -> Figure:
    """A row per image, or `columns` images in a row: the image, then every stage, with a legend.

    Args:
        maps: one or more, all of one model.
        classes: class names, for the captions.
        columns: how many images stand side by side; it divides their number.
        frozen: what becomes of frozen tokens; see `fate_of_frozen`.
    """
    rows = [
        [panel for token_map in maps[start : start + columns] for panel in _panels(token_map, classes)]
        for start in range(0, len(maps), columns)
    ]
    titles = ["image", *(f"stage {stage}" for stage in range(len(maps[0].kept)))]
    legend = (
        (Patch(facecolor="none", edgecolor="#8a867d"), "kept: runs the blocks"),
        (Patch(color=_color(VEIL)), f"frozen: {frozen}"),
        (Patch(facecolor="none", edgecolor=_color(REUSED)), "reused: frozen before, kept now"),
    )
    return picture_grid(rows, titles * columns, _SIDE_INCHES, legend)


def fate_of_frozen(approximator: str) -> str:
    """What a network with this approximator makes of frozen tokens, in a word or two."""
    return {DISCARD: "discarded", FUSE: "fused into one"}.get(approximator, "estimated")


def most_maps(height: int, width: int) -> int:
    """Images of this shape that a figure of one column can hold: a PNG of matplotlib has fewer than 2^16 rows."""
    return int(_HIGHEST_INCHES / (_SIDE_INCHES * height / width + _CAPTION_INCHES))


def class_name(index: int, classes: Sequence[str]) -> str:
    """The class's name, or its number where there are no names."""
    return classes[index] if 0 <= index < len(classes) else f"class {index}"


def _panels(token_map: TokenMap, classes: Sequence[str]) -> list[Panel]:
    caption = short(class_name(token_map.predicted, classes))
    if token_map.label is not None and token_map.label != token_map.predicted:
        caption += f" (is {short(class_name(token_map.label, classes))})"
    panels = [(stage_picture(token_map, None), caption)]
    for stage, (kept, reused) in enumerate(zip(token_map.kept, token_map.reused, strict=True)):
        again = f", {reused.sum()} reused" if reused.any() else ""
        panels.append((stage_picture(token_map, stage), f"{kept.sum()} kept{again}"))
    return panels


def _color(rgb: tuple[int, int, int]) -> str:
    """In the form that matplotlib takes."""
    return "#" + bytes(rgb).hex()


def _class_names(checkpoint: Checkpoint, source: ImageSource) -> tuple[str, ...]:
    """What the network's outputs are called: its own names; those of the images only where it has none and they fit."""
    if checkpoint.classes:
        return checkpoint.classes
    return source.classes if len(source.classes) == checkpoint.model.vit.num_classes else ()


def _reuse_sentence(summary: ReuseSummary, checkpoint: Checkpoint) -> str:
    if checkpoint.model.discards:
        return "This model discards tokens, so none is ever reused."
    stages = ", ".join(f"{mean:.1f} in stage {stage}" for stage, mean in enumerate(summary.per_stage) if stage)
    sentence = (
        f"{summary.ever:.1f} of {checkpoint.model.tokens} tokens are used again after they were frozen, on average "
        f"over {count(summary.images, 'image')}"
    )
    return f"{sentence}: {stages}." if stages else f"{sentence}."
