"""Token maps of held-out images, ready for the page."""

from __future__ import annotations

from dataclasses import dataclass, field

from tofe_export.checkpoints.checkpoint import Checkpoint
from tofe_export.data.images import ImageSource
from tofe_export.data.sources import class_note
from tofe_export.errors import count
from tofe_export.files.commands import quoted
from tofe_export.files.names import CHECKPOINT
from tofe_export.page.folder import RunFolder
from tofe_export.page.images import ShownImages
from tofe_export.page.pictures import data_uri
from tofe_export.page.token_maps import ReuseSummary, TokenMap, summarize_reuse, token_maps
from tofe_export.page.token_pictures import class_name, plain, stage_picture


@dataclass(frozen=True)
class StagePicture:
    """A stage's picture: the image's URI, how many tokens were kept and reused, and the same in words.

    `threshold` is how many the threshold rule would keep; None where the network has none.
    """

    uri: str
    kept: int
    reused: int
    threshold: int | None
    alt: str


@dataclass(frozen=True)
class GalleryImage:
    """One image of the gallery with its stages; `right` is None where the label is unknown."""

    name: str
    uri: str
    predicted: str
    label: str
    right: bool | None
    disagreement: str
    stages: list[StagePicture]


@dataclass(frozen=True)
class Gallery:
    """The section on token maps.

    Attributes:
        images: empty when there is nothing to show.
        reason: why there is nothing, or "".
        command: what makes it, or "".
        reuse: a sentence on how many tokens come back.
        source: where the images are from.
        notes: sentences on images that were replaced or skipped.
        keep: keep counts, and tokens of an image.
        maps: the token maps themselves, and the names of their classes, for files.
        discards: frozen tokens never come back.
    """

    images: list[GalleryImage] = field(default_factory=list)
    reason: str = ""
    command: str = ""
    reuse: str = ""
    source: str = ""
    notes: list[str] = field(default_factory=list)
    keep: tuple[int, ...] = ()
    tokens: int = 0
    maps: list[TokenMap] = field(default_factory=list)
    classes: tuple[str, ...] = ()
    discards: bool = False

    @property
    def by_threshold(self) -> bool:
        """Whether the network has a threshold to compare with."""
        return any(stage.threshold is not None for image in self.images for stage in image.stages)


def gallery(run: RunFolder, images: ShownImages | None) -> Gallery:
    """Token maps of images, evenly spread over their source.

    Args:
        run: the run.
        images: None for no pictures.

    Raises:
        InputError: not one image can be read.
    """
    if run.checkpoint is None:
        return Gallery(reason=f"There is no {CHECKPOINT} here to look into. Copy the checkpoint here under that name.")
    if images is None:
        return Gallery(reason="The page was written without pictures.", command=run.commands.pictures)
    keep = run.keep_counts()
    if keep is None:
        return Gallery(
            reason="The checkpoint holds no learned keep ratios, and no model was exported.",
            command=f"{run.commands.onnx} --keep-from {quoted(run.checkpoint.data or 'photos')}",
        )
    source, model = images.source, run.checkpoint.model
    classes = _class_names(run.checkpoint, source)
    maps = token_maps(run.checkpoint, keep, images.shown("Token maps"))
    reuse = summarize_reuse(model, keep, images.averaged("Reused tokens"))
    notes = [*images.notes, class_note(source, classes) if source.classes else ""]
    return Gallery(
        images=[_image(token_map, classes, source.classes) for token_map in maps],
        reuse=_reuse_sentence(reuse, run.checkpoint),
        source=source.name,
        notes=[note for note in notes if note] + (images.log.lines() if images.log.left_out else []),
        keep=keep,
        tokens=model.tokens,
        maps=maps,
        classes=classes,
        discards=model.discards,
    )


def _class_names(checkpoint: Checkpoint, source: ImageSource) -> tuple[str, ...]:
    """What the network's outputs are called: its own names; those of the images only where it has none and they fit."""
    if checkpoint.classes:
        return checkpoint.classes
    outputs = getattr(checkpoint.model.vit, "num_classes", None)
    return source.classes if len(source.classes) == outputs else ()


def _image(token_map: TokenMap, classes: tuple[str, ...], labels: tuple[str, ...]) -> GalleryImage:
    # A label counts only where it means what the network's output of that number means.
    label = token_map.label if labels == classes else None
    other = token_map.predicted_by_threshold
    return GalleryImage(
        name=token_map.name,
        uri=data_uri(plain(token_map)),
        predicted=class_name(token_map.predicted, classes),
        label="" if label is None else class_name(label, labels),
        right=None if label is None else token_map.predicted == label,
        disagreement="" if other in (None, token_map.predicted) else class_name(other, classes),
        stages=[_stage(token_map, stage) for stage in range(len(token_map.kept))],
    )


def _stage(token_map: TokenMap, stage: int) -> StagePicture:
    kept, reused = int(token_map.kept[stage].sum()), int(token_map.reused[stage].sum())
    tokens = token_map.kept[stage].size
    return StagePicture(
        uri=data_uri(stage_picture(token_map, stage)),
        kept=kept,
        reused=reused,
        threshold=token_map.counts[stage] if stage < len(token_map.counts) else None,
        alt=f"Stage {stage}: {kept} of {tokens} tokens kept, {reused} of them reused, {tokens - kept} frozen.",
    )


def _reuse_sentence(summary: ReuseSummary, checkpoint: Checkpoint) -> str:
    if checkpoint.model.discards:
        return "This model discards tokens, so none is ever reused."
    stages = ", ".join(f"{mean:.1f} in stage {stage}" for stage, mean in enumerate(summary.per_stage) if stage)
    sentence = (
        f"{summary.ever:.1f} of {checkpoint.model.tokens} tokens are used again after they were frozen, on average "
        f"over {count(summary.images, 'image')}"
    )
    return f"{sentence}: {stages}." if stages else f"{sentence}."
