"""Token maps as pictures: frozen tokens veiled, kept ones clear, reused ones outlined."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from tofe_export.page.labels import short
from tofe_export.page.pictures import REUSED, Canvas, Panel, picture_grid
from tofe_export.page.token_maps import TokenMap

VEIL = (150, 150, 148)  # a middle gray, so that neither white nor black content passes for frozen
_VEIL_STRENGTH = 0.84


def plain(token_map: TokenMap) -> Image.Image:
    """The image, enlarged as its stages are."""
    return Canvas(token_map.pixels, token_map.kept.shape[1:]).image


def stage_picture(token_map: TokenMap, stage: int) -> Image.Image:
    """The image as one stage sees it.

    Args:
        token_map: the image and its tokens.
        stage: 0..S-1.
    """
    canvas = Canvas(token_map.pixels, token_map.kept.shape[1:])
    veiled = canvas.grey + (np.array(VEIL) - canvas.grey) * _VEIL_STRENGTH
    values = np.where(canvas.spread(token_map.kept[stage])[..., None], canvas.values, veiled)
    return canvas.outlined(values, token_map.reused[stage], share=10)


def token_map_figure(maps: Sequence[TokenMap], classes: Sequence[str] = (), columns: int = 1) -> Figure:
    """A row per image, or `columns` images in a row: the image, then every stage, with a legend.

    Args:
        maps: one or more, all of one model.
        classes: class names, for the captions.
        columns: how many images stand side by side; it divides their number.
    """
    rows = [
        [panel for token_map in maps[start : start + columns] for panel in _panels(token_map, classes)]
        for start in range(0, len(maps), columns)
    ]
    titles = ["image", *(f"stage {stage}" for stage in range(len(maps[0].kept)))]
    legend = (
        (Patch(facecolor="none", edgecolor="#8a867d"), "kept: runs the blocks"),
        (Patch(color=_color(VEIL)), "frozen: estimated"),
        (Patch(facecolor="none", edgecolor=_color(REUSED)), "reused: frozen before, kept now"),
    )
    return picture_grid(rows, titles * columns, 1.18, legend)


def _panels(token_map: TokenMap, classes: Sequence[str]) -> list[Panel]:
    caption = short(class_name(token_map.predicted, classes))
    if token_map.label not in (None, token_map.predicted):
        caption += f" (is {short(class_name(token_map.label or 0, classes))})"
    panels = [(plain(token_map), caption)]
    for stage, (kept, reused) in enumerate(zip(token_map.kept, token_map.reused, strict=True)):
        again = f", {int(reused.sum())} reused" if reused.any() else ""
        panels.append((stage_picture(token_map, stage), f"{int(kept.sum())} kept{again}"))
    return panels


def class_name(index: int, classes: Sequence[str]) -> str:
    """The class's name, or its number where there are no names."""
    return classes[index] if 0 <= index < len(classes) else f"class {index}"


def _color(rgb: tuple[int, int, int]) -> str:
    """In the form that matplotlib takes."""
    red, green, blue = (part / 255 for part in rgb)
    return to_hex((red, green, blue))
