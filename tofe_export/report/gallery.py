"""Token maps of held-out images, ready for the page."""

from __future__ import annotations

from dataclasses import dataclass, field

from tofe_export.artifacts.commands import quoted
from tofe_export.artifacts.names import CHECKPOINT, readable
from tofe_export.checkpoints.checkpoint import Checkpoint
from tofe_export.data.image_log import ImageLog
from tofe_export.data.images import ImageSource, batches
from tofe_export.data.sources import class_note, open_source
from tofe_export.errors import InputError, count
from tofe_export.report.folder import RunFolder
from tofe_export.report.pictures import class_name, data_uri, plain, stage_picture
from tofe_export.report.token_maps import ReuseSummary, TokenMap, summarise_reuse, token_maps

_BATCH = 8
_SUMMARY_IMAGES = 64  # enough for an average, seconds on a CPU


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
class Entry:
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
        entries: one per image; empty when there is nothing to show.
        reason: why there is nothing, or "".
        command: what makes it, or "".
        reuse: a sentence on how many tokens come back.
        source: where the images are from.
        notes: sentences on images that were replaced or skipped.
        keep: keep counts, and tokens of an image.
        maps: the token maps themselves, and the names of their classes, for files.
        discards: frozen tokens never come back.
    """

    entries: list[Entry] = field(default_factory=list)
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
        return any(stage.threshold is not None for entry in self.entries for stage in entry.stages)


def gallery(found: RunFolder, images: int, data: str | None, log: ImageLog) -> Gallery:
    """Token maps of `images` images, evenly spread over the source.

    Args:
        found: the run.
        images: how many; 0 for none.
        data: where they come from; None takes what the checkpoint was trained on.
        log: told which images were read and which were left out.

    Raises:
        InputError: `data` names no images, or not one of them can be read.
    """
    if images == 0:
        return Gallery(reason="No pictures were asked for.", command=found.commands.pictures)
    if found.checkpoint is None:
        return Gallery(reason=f"There is no {CHECKPOINT} here to look into. Copy the checkpoint here under that name.")
    keep = found.keep_counts()
    if keep is None:
        command = f"{found.commands.onnx} --keep-from {quoted(found.checkpoint.data or 'photos')}"
        return Gallery(
            reason="The checkpoint holds no learned keep ratios, and no model was exported.",
            command=command,
        )
    source, notes = held_out(found.checkpoint, data)
    classes = _class_names(found.checkpoint, source)
    load = found.checkpoint.preprocessing
    shown = token_maps(found.checkpoint, keep, batches(source, load, _BATCH, images, log=log))
    many = batches(source, load, _BATCH, max(images, _SUMMARY_IMAGES), log=log)
    reuse = summarise_reuse(found.checkpoint.model, keep, many)
    if source.classes and (note := class_note(source, classes)):
        notes.append(note)
    return Gallery(
        entries=[_entry(token_map, classes, source.classes) for token_map in shown],
        reuse=_reuse_sentence(reuse, found.checkpoint),
        source=readable(source.name),
        notes=notes + (log.lines() if log.left_out else []),
        keep=keep,
        tokens=found.checkpoint.model.tokens,
        maps=shown,
        classes=classes,
        discards=found.checkpoint.model.discards,
    )


def _class_names(checkpoint: Checkpoint, source: ImageSource) -> tuple[str, ...]:
    """What the network's outputs are called: its own names; those of the images only where it has none and they fit."""
    if checkpoint.classes:
        return checkpoint.classes
    outputs = getattr(checkpoint.model.vit, "num_classes", None)
    return source.classes if len(source.classes) == outputs else ()


def held_out(checkpoint: Checkpoint, data: str | None) -> tuple[ImageSource, list[str]]:
    """Images to show, and sentences on why it is those.

    Raises:
        InputError: `data` names no images.
    """
    if data is not None:
        return open_source(data, "any"), []
    if checkpoint.data:
        try:
            return open_source(checkpoint.data, "val"), []
        except InputError:
            note = f"The images it was trained on ({checkpoint.data}) are not here, so these are bundled photographs."
            return open_source("photos", "val"), [note]
    return open_source("photos", "val"), ["What it was trained on is unknown, so these are bundled photographs."]


def _entry(found: TokenMap, classes: tuple[str, ...], labels: tuple[str, ...]) -> Entry:
    # A label counts only where it means what the network's output of that number means.
    known = found.label is not None and labels == classes
    other = found.predicted_by_threshold
    return Entry(
        name=found.name,
        uri=data_uri(plain(found.pixels)),
        predicted=class_name(found.predicted, classes),
        label=class_name(found.label, labels) if found.label is not None and known else "",
        right=found.predicted == found.label if known else None,
        disagreement=class_name(other, classes) if other is not None and other != found.predicted else "",
        stages=[_stage(found, stage) for stage in range(found.kept.shape[0])],
    )


def _stage(found: TokenMap, stage: int) -> StagePicture:
    kept, again = int(found.kept[stage].sum()), int(found.reused[stage].sum())
    tokens = found.kept[stage].size
    return StagePicture(
        uri=data_uri(stage_picture(found, stage)),
        kept=kept,
        reused=again,
        threshold=found.counts[stage] if stage < len(found.counts) else None,
        alt=f"Stage {stage}: {kept} of {tokens} tokens kept, {again} of them reused, {tokens - kept} frozen.",
    )


def _reuse_sentence(found: ReuseSummary, checkpoint: Checkpoint) -> str:
    over = f"on average over {count(found.images, 'image')}"
    if checkpoint.model.discards:
        return "This model discards tokens, so none is ever reused."
    stages = ", ".join(f"{mean:.1f} in stage {stage}" for stage, mean in enumerate(found.per_stage) if stage)
    of = f"{found.ever:.1f} of {checkpoint.model.tokens} tokens are used again after they were frozen"
    return f"{of}, {over}" + (f": {stages}." if stages else ".")
