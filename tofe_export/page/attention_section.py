"""The section on attention of reused tokens: pictures of a few images, and a number over many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from tofe_export.page.attention import Similarity, mean_similarity, reused_attention, why_not
from tofe_export.page.folder import RunFolder
from tofe_export.page.images import ShownImages
from tofe_export.page.pictures import Canvas, picture_grid
from tofe_export.page.tables import Row, Table
from tofe_export.page.token_maps import to_pixels

VERSIONS = {"before": "before approximation", "after": "after approximation", "dense": "dense teacher"}
"""Of the tokens; see `attention`."""
_SHOWN = 3  # pictures; the numbers are over many more
_STRENGTH = 0.72  # of the color over the gray image
_HEAD = "Cosine to the dense attention", "reused\ntokens", "before\napproximation", "after\napproximation"


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
        """The image in gray, the more attention the brighter; reused tokens outlined.

        All versions have the same scale of brightness, so that they can be compared side by side.
        """
        canvas = Canvas(self.pixels, self.tokens.shape)
        top = max(float(values.max()) for values in self.maps.values()) or 1.0
        color = matplotlib.colormaps["inferno"](canvas.spread(self.maps[version] / top))[..., :3] * 255
        return canvas.outlined(canvas.gray * (1 - _STRENGTH) + color * _STRENGTH, self.tokens, share=14)

    def words(self, version: str) -> str:
        """The picture for those who cannot see it: where the attention lies, in ninths of the image."""
        values = self.maps[version]
        row, column = np.unravel_index(int(values.argmax()), values.shape)
        down = ("top", "middle", "bottom")[3 * int(row) // values.shape[0]]
        across = ("left", "center", "right")[3 * int(column) // values.shape[1]]
        return (
            f"Attention of {self.tokens.sum()} reused tokens in stage {self.stage}, {VERSIONS[version]}: greatest "
            f"at the {down} {across}, {values.max():.1%} on one token."
        )


@dataclass(frozen=True)
class AttentionSection:
    """What the page shows.

    Attributes:
        reason: why there is nothing to show, or "".
        teacher: the network that it is compared with, in words.
        table: similarity per stage, None where there is none.
        sentence: what the table says.
        maps: of a few images, each of the stage that uses most of its tokens again.
    """

    reason: str = ""
    teacher: str = ""
    table: Table | None = None
    sentence: str = ""
    maps: list[HeatMap] = field(default_factory=list)


def attention_section(run: RunFolder, images: ShownImages | None) -> AttentionSection:
    """Attention of reused tokens before and after approximation, beside the dense teacher's; nothing without `images`.

    Raises:
        InputError: not one image can be read.
    """
    checkpoint, keep = run.checkpoint, run.keep_counts()
    if images is None or checkpoint is None or keep is None:
        return AttentionSection()
    model = checkpoint.model
    if reason := why_not(model):
        return AttentionSection(reason)
    teacher = model.vit if run.teacher is None else run.teacher
    similarity = mean_similarity(model, teacher, keep, images.averaged("Attention"))
    if not similarity:
        return AttentionSection("No token of these images is used again after it was frozen.")
    maps: list[HeatMap] = []
    grid = model.vit.patch_embed.grid_size
    for batch in images.shown("Attention maps"):
        stages = reused_attention(model, teacher, keep, batch.images)
        for place, name in enumerate(batch.names):
            most = max(stages, key=lambda stage: int(stage.tokens[place].sum()), default=None)
            if most is None or not most.tokens[place].any():
                continue
            tokens = most.tokens[place].reshape(grid).numpy()
            cells = {version: getattr(most, version)[place].double().reshape(grid).numpy() for version in VERSIONS}
            pixels = to_pixels(batch.images[place], checkpoint.preprocessing)
            maps.append(HeatMap(name, most.stage, pixels, tokens, cells))
    rows = [Row(f"Stage {one.stage}", (str(one.tokens), f"{one.before:.3f}", f"{one.after:.3f}")) for one in similarity]
    return AttentionSection(
        teacher="its own backbone, run densely" if run.teacher is None else "the dense teacher that training kept",
        table=Table.of("Similarity of attention", _HEAD, rows, narrow=True),
        sentence=_sentence(similarity),
        maps=maps[:_SHOWN],
    )


def heat_figure(maps: Sequence[HeatMap]) -> Figure:
    """A row per image: before, after, dense."""
    rows = [
        [
            (heat.picture(version), "" if place else f"stage {heat.stage}, {heat.tokens.sum()} reused")
            for place, version in enumerate(VERSIONS)
        ]
        for heat in maps
    ]
    return picture_grid(rows, list(VERSIONS.values()), 1.5)


def _sentence(similarities: list[Similarity]) -> str:
    closer = [str(one.stage) for one in similarities if one.after > one.before]
    if not closer:
        return "The approximator does not bring the attention of reused tokens nearer to the dense teacher’s."
    where = "every stage" if len(closer) == len(similarities) else f"stage {' and '.join(closer)} only"
    return f"The approximator brings the attention of reused tokens nearer to the dense teacher’s in {where}."
