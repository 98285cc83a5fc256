"""Token maps as pictures: frozen tokens veiled, kept ones clear, reused ones outlined."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from tofe_export.errors import InputError
from tofe_export.report.drawing import drawing, write_png
from tofe_export.report.labels import short
from tofe_export.report.token_maps import TokenMap

REUSED = (236, 98, 26)  # orange: seen on dark and light, and by colour-blind readers against the grey veil
VEIL = (150, 150, 148)  # a middle grey, so that neither white nor black content passes for frozen
_VEIL_STRENGTH = 0.84
_SIDE = 256  # pixels of a picture's shorter side, at least: sharp on a 2x screen at 128 CSS pixels


def plain(pixels: NDArray[np.uint8]) -> Image.Image:
    """The image, enlarged as the token maps are."""
    return enlarge(pixels, picture_scale(pixels))


def stage_picture(found: TokenMap, stage: int) -> Image.Image:
    """The image as one stage sees it.

    Args:
        found: the map.
        stage: 0..S-1.
    """
    scale = picture_scale(found.pixels)
    image = np.asarray(enlarge(found.pixels, scale), dtype=np.float32)
    kept, again = found.kept[stage], found.reused[stage]
    edges = cell_edges(image.shape[0], kept.shape[0]), cell_edges(image.shape[1], kept.shape[1])
    clear = _spread(kept, edges)[..., None]
    grey = image.mean(axis=2, keepdims=True)
    veiled = grey + (np.array(VEIL, dtype=np.float32) - grey) * _VEIL_STRENGTH
    out = np.where(clear, image, veiled)
    width = max(2, min(image.shape[0] // kept.shape[0], image.shape[1] // kept.shape[1]) // 10)
    out[outline(again, edges, width)] = REUSED
    return Image.fromarray(out.round().astype(np.uint8))


def data_uri(image: Image.Image) -> str:
    """The picture as a PNG inside a URI."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def write_token_map(path: Path, maps: Sequence[TokenMap], classes: Sequence[str] = (), columns: int = 1) -> None:
    """One figure with a row per image: the image, then every stage. Light background, twice the screen's pixels.

    Args:
        path: PNG to write, atomically.
        maps: from `token_maps`, all of one model.
        classes: class names, for the captions.
        columns: how many images stand side by side.

    Raises:
        InputError: no maps, columns below 1, or a path that cannot be written.
    """
    if not maps or columns < 1:
        raise InputError("There is no token map to draw.", "Give at least one image and one column.")
    write_png(token_map_figure(maps, classes, columns), path)


@drawing()
def token_map_figure(maps: Sequence[TokenMap], classes: Sequence[str] = (), columns: int = 1) -> Figure:
    """A row per image: the image, then every stage, with a legend; see `write_token_map`."""
    stages = maps[0].kept.shape[0]
    rows = -(-len(maps) // columns)
    panel, gap, caption, top, bottom, side = 1.18, 0.28, 0.30, 0.32, 0.34, 0.08  # inches
    aspect = maps[0].pixels.shape[0] / maps[0].pixels.shape[1]
    group = (stages + 1) * panel + stages * 0.07
    width = columns * group + (columns - 1) * gap + 2 * side
    height = top + rows * (panel * aspect + caption) + bottom
    figure = Figure(figsize=(width, height))
    for number, found in enumerate(maps):
        row, column = divmod(number, columns)
        for place in range(stages + 1):
            left = side + column * (group + gap) + place * (panel + 0.07)
            under = height - top - (row + 1) * panel * aspect - row * caption
            axes = figure.add_axes((left / width, under / height, panel / width, panel * aspect / height))
            axes.imshow(plain(found.pixels) if place == 0 else stage_picture(found, place - 1), interpolation="lanczos")
            axes.set_axis_off()
            text = _caption(found, classes) if place == 0 else _stage_caption(found, place - 1)
            axes.text(0.0, -0.05, text, transform=axes.transAxes, va="top", fontsize=6.4, color="#55524c")
            if row == 0:
                title = "image" if place == 0 else f"stage {place - 1}"
                axes.text(0.0, 1.05, title, transform=axes.transAxes, va="bottom", fontsize=8, color="#1f1e1b")
    _legend(figure, side / width, 0.11 / height, width, height)
    return figure


def _legend(figure: Figure, left: float, bottom: float, width: float, height: float) -> None:
    entries = (("kept: runs the blocks", "none", "#8a867d"), ("frozen: estimated", _hex(VEIL), _hex(VEIL)))
    again = ("reused: frozen before, kept now", "none", _hex(REUSED))
    for label, fill, edge in (*entries, again):
        axes = figure.add_axes((left, bottom, 0.10 / width, 0.10 / height))
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_facecolor(fill)
        for spine in axes.spines.values():
            spine.set_edgecolor(edge)
            spine.set_linewidth(1.2)
        axes.text(1.6, 0.45, label, transform=axes.transAxes, va="center", fontsize=6.8, color="#1f1e1b")
        left += (0.32 + 0.056 * len(label)) / width


def _caption(found: TokenMap, classes: Sequence[str]) -> str:
    said = short(class_name(found.predicted, classes))
    wrong = found.label not in (None, found.predicted)
    return f"{said} (is {short(class_name(found.label or 0, classes))})" if wrong else said


def _stage_caption(found: TokenMap, stage: int) -> str:
    again = int(found.reused[stage].sum())
    return f"{int(found.kept[stage].sum())} kept" + (f", {again} reused" if again else "")


def class_name(index: int, classes: Sequence[str]) -> str:
    """The class's name, or its number where there are no names."""
    return classes[index] if 0 <= index < len(classes) else f"class {index}"


def picture_scale(pixels: NDArray[np.uint8]) -> int:
    """How many times an image is enlarged."""
    return int(max(1, -(-_SIDE // min(pixels.shape[:2]))))


def enlarge(pixels: NDArray[np.uint8], scale: int) -> Image.Image:
    """uint8 [H, W, 3] to a picture `scale` times as large."""
    height, width = pixels.shape[:2]
    return Image.fromarray(pixels).resize((width * scale, height * scale), Image.Resampling.BICUBIC)


def cell_edges(length: int, cells: int) -> NDArray[np.int64]:
    """[cells + 1] borders of the cells in pixels."""
    return np.arange(cells + 1) * length // cells


def _spread(cells: NDArray[np.bool_], edges: tuple[NDArray[np.int64], NDArray[np.int64]]) -> NDArray[np.bool_]:
    """bool [h, w] of cells to bool [H, W] of pixels."""
    return cells.repeat(np.diff(edges[0]), axis=0).repeat(np.diff(edges[1]), axis=1)


def outline(
    cells: NDArray[np.bool_], edges: tuple[NDArray[np.int64], NDArray[np.int64]], width: int
) -> NDArray[np.bool_]:
    """bool [H, W]: a frame `width` pixels wide just inside every cell that is set."""
    frame = np.zeros((edges[0][-1], edges[1][-1]), dtype=np.bool_)
    for row, column in np.argwhere(cells):
        top, bottom, left, right = edges[0][row], edges[0][row + 1], edges[1][column], edges[1][column + 1]
        frame[top:bottom, left:right] = True
        frame[top + width : bottom - width, left + width : right - width] = False
    return frame


def _hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
