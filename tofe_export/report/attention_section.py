"""The section on attention of reused tokens: pictures of a few images, and a number over many."""

from __future__ import annotations

from dataclasses import dataclass, field

from tofe_export.checkpoints.checkpoint import Checkpoint
from tofe_export.data.image_log import ImageLog
from tofe_export.data.images import batches
from tofe_export.report.attention import Similarity, StageAttention, mean_similarity, reused_attention, why_not
from tofe_export.report.folder import RunFolder
from tofe_export.report.gallery import held_out
from tofe_export.report.heat import TITLES, VERSIONS, HeatMap
from tofe_export.report.pictures import data_uri
from tofe_export.report.token_maps import grid_of, to_pixels

_BATCH = 8
_SUMMARY_IMAGES = 64
_SHOWN = 3  # pictures; the numbers are over many more


@dataclass(frozen=True)
class AttentionEntry:
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
        teacher: whose attention is held against it.
        rows: (stage, reused tokens, similarity before, after).
        sentence: what the rows say.
        entries: pictures.
        maps: the same, for files.
    """

    reason: str = ""
    teacher: str = ""
    rows: list[tuple[str, str, str, str]] = field(default_factory=list)
    sentence: str = ""
    entries: list[AttentionEntry] = field(default_factory=list)
    maps: list[HeatMap] = field(default_factory=list)


def attention_section(found: RunFolder, images: int, data: str | None, log: ImageLog) -> AttentionSection:
    """Attention of reused tokens before and after approximation, beside the dense teacher's.

    Args:
        found: the run.
        images: pictures that were asked for; 0 leaves the section out.
        data: where images come from, as in `gallery`.
        log: told which images were read and which were left out.

    Raises:
        InputError: see `held_out`.
    """
    checkpoint, keep = found.checkpoint, found.keep_counts()
    if images == 0 or checkpoint is None or keep is None:
        return AttentionSection()
    if reason := why_not(checkpoint.model):
        return AttentionSection(reason)
    teacher = checkpoint.model.vit if found.teacher is None else found.teacher
    source, _ = held_out(checkpoint, data)
    load = checkpoint.preprocessing
    many = batches(source, load, _BATCH, max(images, _SUMMARY_IMAGES), log=log)
    similarity = mean_similarity(checkpoint.model, teacher, keep, many)
    if not similarity:
        return AttentionSection("No token of these images is used again after it was frozen.")
    maps: list[HeatMap] = []
    for batch in batches(source, load, _BATCH, images, log=log):
        stages = reused_attention(checkpoint.model, teacher, keep, batch.images)
        for place, name in enumerate(batch.names):
            pixels = to_pixels(batch.images[place], load)
            maps += [] if (made := _heat(checkpoint, stages, place, name, pixels)) is None else [made]
    shown = maps[:_SHOWN]
    return AttentionSection(
        teacher="the dense teacher that training kept"
        if found.teacher is not None
        else "its own backbone, run densely",
        rows=[_row(one) for one in similarity],
        sentence=_sentence(similarity),
        entries=[_entry(one) for one in shown],
        maps=shown,
    )


def _heat(
    checkpoint: Checkpoint, stages: list[StageAttention], place: int, name: str, pixels: object
) -> HeatMap | None:
    """Of the stage that uses most tokens of the image again; None where none does."""
    most = max(stages, key=lambda stage: int(stage.tokens[place].sum()), default=None)
    if most is None or not most.tokens[place].any():
        return None
    rows, columns = grid_of(checkpoint.model)
    maps = {version: getattr(most, version)[place].double().reshape(rows, columns).numpy() for version in VERSIONS}
    tokens = most.tokens[place].reshape(rows, columns).numpy()
    return HeatMap(name, most.stage, pixels, tokens, maps)  # type: ignore[arg-type]


def _entry(found: HeatMap) -> AttentionEntry:
    pictures = [(TITLES[version], data_uri(found.picture(version)), found.words(version)) for version in VERSIONS]
    return AttentionEntry(found.name, found.stage, int(found.tokens.sum()), pictures)


def _row(found: Similarity) -> tuple[str, str, str, str]:
    return f"Stage {found.stage}", str(found.tokens), f"{found.before:.3f}", f"{found.after:.3f}"


def _sentence(found: list[Similarity]) -> str:
    closer = [one for one in found if one.after > one.before]
    if len(closer) == len(found):
        return "The approximator brings reused tokens nearer to the dense teacher's attention in every stage."
    if not closer:
        return "The approximator does not bring reused tokens nearer to the dense teacher's attention."
    names = " and ".join(str(one.stage) for one in closer)
    return f"The approximator brings reused tokens nearer to the dense teacher's attention in stage {names} only."
