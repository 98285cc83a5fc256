"""The section on attention of reused tokens: pictures of a few images, and a number over many."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tofe_export.checkpoints.checkpoint import Checkpoint
from tofe_export.page.attention import Similarity, StageAttention, mean_similarity, reused_attention, why_not
from tofe_export.page.folder import RunFolder
from tofe_export.page.heat import TITLES, VERSIONS, HeatMap
from tofe_export.page.images import ShownImages
from tofe_export.page.pictures import data_uri
from tofe_export.page.tables import Row, Table
from tofe_export.page.token_maps import grid_of, to_pixels

_SHOWN = 3  # pictures; the numbers are over many more
_HEAD = "Cosine to the dense attention", "reused\ntokens", "before\napproximation", "after\napproximation"


@dataclass(frozen=True)
class AttentionImage:
    """One image: the stage that uses most tokens again, and (title, URI, words) of each version."""

    name: str
    stage: int
    tokens: int
    pictures: list[tuple[str, str, str]]


@dataclass(frozen=True)
class AttentionSection:
    """What the page shows.

    Attributes:
        reason: why there is nothing to show, or "".
        teacher: the network that it is compared with, in words.
        table: similarity per stage, None where there is none.
        sentence: what the table says.
        images: pictures.
        maps: the same, for files.
    """

    reason: str = ""
    teacher: str = ""
    table: Table | None = None
    sentence: str = ""
    images: list[AttentionImage] = field(default_factory=list)
    maps: list[HeatMap] = field(default_factory=list)


def attention_section(run: RunFolder, images: ShownImages | None) -> AttentionSection:
    """Attention of reused tokens before and after approximation, beside the dense teacher's.

    Args:
        run: the run.
        images: None omits the section.

    Raises:
        InputError: not one image can be read.
    """
    checkpoint, keep = run.checkpoint, run.keep_counts()
    if images is None or checkpoint is None or keep is None:
        return AttentionSection()
    if reason := why_not(checkpoint.model):
        return AttentionSection(reason)
    teacher = checkpoint.model.vit if run.teacher is None else run.teacher
    similarity = mean_similarity(checkpoint.model, teacher, keep, images.averaged("Attention"))
    if not similarity:
        return AttentionSection("No token of these images is used again after it was frozen.")
    maps: list[HeatMap] = []
    for batch in images.shown("Attention maps"):
        stages = reused_attention(checkpoint.model, teacher, keep, batch.images)
        for place, name in enumerate(batch.names):
            heat = _heat(checkpoint, stages, place, name, to_pixels(batch.images[place], checkpoint.preprocessing))
            maps += [] if heat is None else [heat]
    return AttentionSection(
        teacher="its own backbone, run densely" if run.teacher is None else "the dense teacher that training kept",
        table=Table.of("Similarity of attention", _HEAD, [_row(one) for one in similarity], narrow=True),
        sentence=_sentence(similarity),
        images=[_image(heat) for heat in maps[:_SHOWN]],
        maps=maps[:_SHOWN],
    )


def _heat(
    checkpoint: Checkpoint, stages: list[StageAttention], place: int, name: str, pixels: NDArray[np.uint8]
) -> HeatMap | None:
    """Of the stage that uses most tokens of the image again; None where none does."""
    most = max(stages, key=lambda stage: int(stage.tokens[place].sum()), default=None)
    if most is None or not most.tokens[place].any():
        return None
    grid = grid_of(checkpoint.model)
    maps = {version: getattr(most, version)[place].double().reshape(grid).numpy() for version in VERSIONS}
    return HeatMap(name, most.stage, pixels, most.tokens[place].reshape(grid).numpy(), maps)


def _image(heat: HeatMap) -> AttentionImage:
    pictures = [(TITLES[version], data_uri(heat.picture(version)), heat.words(version)) for version in VERSIONS]
    return AttentionImage(heat.name, heat.stage, int(heat.tokens.sum()), pictures)


def _row(similarity: Similarity) -> Row:
    values = str(similarity.tokens), f"{similarity.before:.3f}", f"{similarity.after:.3f}"
    return Row(f"Stage {similarity.stage}", values)


def _sentence(similarities: list[Similarity]) -> str:
    closer = [str(one.stage) for one in similarities if one.after > one.before]
    if not closer:
        return "The approximator does not bring the attention of reused tokens nearer to the dense teacher’s."
    where = "every stage" if len(closer) == len(similarities) else f"stage {' and '.join(closer)} only"
    return f"The approximator brings the attention of reused tokens nearer to the dense teacher’s in {where}."
