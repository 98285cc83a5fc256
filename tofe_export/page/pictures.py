"""Images with their grid of tokens drawn into them, and figures that set several side by side."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray
from PIL import Image

from tofe_export.page.drawing import PAPER, drawing

REUSED = (236, 98, 26)  # orange: seen on dark and light, and by color-blind readers against the gray veil
_SIDE = 256  # pixels of a picture's shorter side, at least: sharp on a 2x screen at 128 CSS pixels

Value = TypeVar("Value", np.bool_, np.float64)
Panel = tuple[Image.Image, str]
"""A picture and its caption."""


class Canvas:
    """An image, enlarged, that knows which of its pixels belong to which token.

    Args:
        pixels: uint8 [H, W, 3].
        grid: rows and columns of the tokens.

    Attributes:
        image: the enlarged image.
        values: the same as float [H', W', 3], and `gray` [H', W', 1].
    """

    def __init__(self, pixels: NDArray[np.uint8], grid: tuple[int, ...]) -> None:
        height, width = pixels.shape[:2]
        scale = max(1, -(-_SIDE // min(height, width)))
        self.image = Image.fromarray(pixels).resize((width * scale, height * scale), Image.Resampling.BICUBIC)
        self.values = np.asarray(self.image, dtype=np.float64)
        self.gray = self.values.mean(axis=2, keepdims=True)
        self._down, self._across = (
            np.arange(cells + 1) * side // cells for side, cells in zip(self.values.shape, grid, strict=False)
        )

    def spread(self, cells: NDArray[Value]) -> NDArray[Value]:
        """[h, w] of tokens to [H', W'] of pixels."""
        return cells.repeat(np.diff(self._down), axis=0).repeat(np.diff(self._across), axis=1)

    def outlined(self, values: NDArray[np.float64], cells: NDArray[np.bool_], share: int) -> Image.Image:
        """The picture of `values` with a frame just inside every token of `cells`, 1/`share` of a token wide."""
        picture = values.round().astype(np.uint8)
        width = max(2, min(picture.shape[0] // cells.shape[0], picture.shape[1] // cells.shape[1]) // share)
        for row, column in np.argwhere(cells):
            token = picture[self._down[row] : self._down[row + 1], self._across[column] : self._across[column + 1]]
            inside = token[width:-width, width:-width].copy()
            token[:] = REUSED
            token[width:-width, width:-width] = inside
        return Image.fromarray(picture)


def data_uri(image: Image.Image) -> str:
    """The picture as a PNG inside a URI."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@drawing()
def picture_grid(
    rows: Sequence[Sequence[Panel]], titles: Sequence[str], side: float, legend: Sequence[tuple[Artist, str]] = ()
) -> Figure:
    """A figure of pictures in rows, each with a caption below.

    Args:
        rows: of equal length.
        titles: of the columns.
        side: width of a picture in inches.
        legend: (artist, text), below everything.
    """
    picture = rows[0][0][0]
    height = side * picture.height / picture.width + 0.2
    size = len(titles) * (side + 0.06), len(rows) * height + (0.5 if legend else 0.2)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0))
    for axes_of_row, row in zip(figure.subplots(len(rows), len(titles), squeeze=False), rows, strict=True):
        for axes, (image, caption) in zip(axes_of_row, row, strict=True):
            axes.imshow(image, interpolation="lanczos")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.set_xlabel(caption, loc="left", fontsize=6.4, color=PAPER.faint, labelpad=2)
    for axes, title in zip(figure.axes, titles, strict=False):
        axes.set_title(title, loc="left", fontsize=8, pad=3)
    if legend:
        artists, texts = zip(*legend, strict=True)
        figure.legend(artists, texts, loc="outside lower left", ncols=3, frameon=False, fontsize=6.8, handlelength=1)
    return figure
