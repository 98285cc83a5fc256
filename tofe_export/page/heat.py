"""Attention as pictures: the image in gray, the more attention the brighter; reused tokens outlined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from tofe_export.page.pictures import Canvas, picture_grid

VERSIONS = ("before", "after", "dense")
TITLES = {"before": "before approximation", "after": "after approximation", "dense": "dense teacher"}
_STRENGTH = 0.72  # of the color over the gray image


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
        """One version; all of them have the same scale of brightness, so that they can be compared side by side."""
        canvas = Canvas(self.pixels, self.tokens.shape)
        top = max(float(values.max()) for values in self.maps.values()) or 1.0
        color = matplotlib.colormaps["inferno"](canvas.spread(self.maps[version] / top))[..., :3] * 255
        return canvas.outlined(canvas.grey * (1 - _STRENGTH) + color * _STRENGTH, self.tokens, share=14)

    def words(self, version: str) -> str:
        """The picture for those who cannot see it: where the attention lies, in ninths of the image."""
        values = self.maps[version]
        row, column = np.unravel_index(int(values.argmax()), values.shape)
        down = ("top", "middle", "bottom")[3 * int(row) // values.shape[0]]
        across = ("left", "center", "right")[3 * int(column) // values.shape[1]]
        return (
            f"Attention of {int(self.tokens.sum())} reused tokens in stage {self.stage}, {TITLES[version]}: greatest "
            f"at the {down} {across}, {values.max():.1%} on one token."
        )


def heat_figure(maps: Sequence[HeatMap]) -> Figure:
    """A row per image: before, after, dense."""
    rows = [
        [
            (heat.picture(version), "" if place else f"stage {heat.stage}, {int(heat.tokens.sum())} reused")
            for place, version in enumerate(VERSIONS)
        ]
        for heat in maps
    ]
    return picture_grid(rows, list(TITLES.values()), 1.5)
