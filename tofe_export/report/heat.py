"""Attention as pictures: the image in grey, the more attention the brighter; reused tokens outlined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from tofe_export.report.drawing import drawing
from tofe_export.report.pictures import REUSED, cell_edges, enlarge, outline, picture_scale

VERSIONS = ("before", "after", "dense")
TITLES = {"before": "before approximation", "after": "after approximation", "dense": "dense teacher"}
_STRENGTH = 0.72  # of the colour over the grey image


@dataclass(frozen=True)
class HeatMap:
    """Attention of one image's reused tokens in one stage.

    Attributes:
        name: of the image.
        stage: stage number.
        pixels: uint8 [H, W, 3].
        tokens: bool [h, w], the reused tokens.
        maps: version -> float [h, w], adding up to 1.
    """

    name: str
    stage: int
    pixels: NDArray[np.uint8]
    tokens: NDArray[np.bool_]
    maps: dict[str, NDArray[np.float64]]

    def picture(self, version: str) -> Image.Image:
        """One version; all of them have the same scale of brightness, so that they can be held side by side."""
        scale = picture_scale(self.pixels)
        image = np.asarray(enlarge(self.pixels, scale), dtype=np.float64)
        values = self.maps[version]
        edges = cell_edges(image.shape[0], values.shape[0]), cell_edges(image.shape[1], values.shape[1])
        top = max(float(found.max()) for found in self.maps.values()) or 1.0
        spread = (values / top).repeat(np.diff(edges[0]), axis=0).repeat(np.diff(edges[1]), axis=1)
        colour = matplotlib.colormaps["inferno"](spread)[..., :3] * 255
        out = image.mean(axis=2, keepdims=True) * (1 - _STRENGTH) + colour * _STRENGTH
        width = max(2, min(image.shape[0] // values.shape[0], image.shape[1] // values.shape[1]) // 14)
        out[outline(self.tokens, edges, width)] = REUSED
        return Image.fromarray(out.round().astype(np.uint8))

    def words(self, version: str) -> str:
        """The picture for those who cannot see it: where the attention lies, in ninths of the image."""
        values = self.maps[version]
        row, column = np.unravel_index(int(values.argmax()), values.shape)
        down = ("top", "middle", "bottom")[3 * int(row) // values.shape[0]]
        across = ("left", "centre", "right")[3 * int(column) // values.shape[1]]
        return (
            f"Attention of {int(self.tokens.sum())} reused tokens in stage {self.stage}, {TITLES[version]}: greatest "
            f"at the {down} {across}, {values.max():.1%} on one token."
        )


@drawing()
def heat_figure(maps: Sequence[HeatMap]) -> Figure:
    """A row per image: before, after, dense."""
    side, gap, caption = 1.5, 0.08, 0.3  # inches
    aspect = maps[0].pixels.shape[0] / maps[0].pixels.shape[1]
    width, height = 3 * side + 4 * gap, caption + len(maps) * (side * aspect + caption)
    figure = Figure(figsize=(width, height))
    for row, found in enumerate(maps):
        for column, version in enumerate(VERSIONS):
            left = gap + column * (side + gap)
            under = height - caption - (row + 1) * side * aspect - row * caption
            axes = figure.add_axes((left / width, under / height, side / width, side * aspect / height))
            axes.imshow(found.picture(version), interpolation="lanczos")
            axes.set_axis_off()
            if row == 0:
                axes.text(0, 1.04, TITLES[version], transform=axes.transAxes, va="bottom", fontsize=8)
            if column == 0:
                text = f"stage {found.stage}, {int(found.tokens.sum())} reused"
                axes.text(0, -0.04, text, transform=axes.transAxes, va="top", fontsize=6.4, color="#55524c")
    return figure
