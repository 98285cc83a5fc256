"""The classes that a model sees in images, and the tokens it looked at."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tofe_export.api.load import AnyModel, export_first, open_model, path_of
from tofe_export.artifacts.artifact import Artifact, require_logits, require_onnxruntime
from tofe_export.artifacts.deployed import BATCH, compared_batch, open_padded, open_with_stages, require_stages_shown
from tofe_export.artifacts.file_kinds import TOKEN_MAP_TITLE, Kind
from tofe_export.artifacts.outputs import Output, require_not_among, require_outputs
from tofe_export.checkpoints.checkpoint import Checkpoint
from tofe_export.data.images import Batch, batches
from tofe_export.data.named import NamedImages, open_named
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.documents.prediction import ClassScore, Prediction, Predictions
from tofe_export.errors import CheckFailedError, InputError
from tofe_export.files.names import readable
from tofe_export.graph.passes.taps import tap_name
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.selection import Layout
from tofe_export.page.drawing import write_png
from tofe_export.page.gallery import fate_of_frozen, most_maps, token_map_figure
from tofe_export.page.token_maps import TokenMap, maps_of, patch_grid
from tofe_export.progress import Progress, silent
from tofe_export.runners.base import LOGITS, Array, Runner
from tofe_export.runners.onnxruntime_runner import CPU, require_onnx

_MOST_DRAWN = 24  # images in a picture: more rows are not looked at


def predict(
    model: AnyModel,
    images: Path | str | Sequence[Path | str] | NamedImages,
    *,
    top: int = 5,
    token_map: Path | str | None = None,
    provider: str = CPU,
    progress: Progress = silent,
) -> Predictions:
    """The most probable classes of each image.

    Args:
        model: an ONNX file, an engine or a checkpoint, which takes its fixed path with the keep counts it knows.
        images: one or more files, folders with images at any depth, or patterns such as "photos/*.jpg"; they are
            prepared as the model requires. Images that were named themselves must be readable, others are left out.
            Or what `open_named` made of all these.
        top: how many classes per image, at least 1; fewer where the model has fewer.
        token_map: a PNG to write: the first images as each stage saw them, with kept, frozen and reused tokens.
        provider: where ONNX Runtime computes, "cpu" or "cuda".
        progress: called with what is being done, steps done, steps in all.

    Returns:
        A document that is a sequence of predictions, one per image in their order.

    Raises:
        InputError: an image that cannot be read, a model without logits or, for a token map, without stages to see, or
            a file that cannot be used or written.
        CheckFailedError: the logits of an image are not finite.
        MissingError: a provider or an engine that cannot run here.
    """
    if top < 1:
        raise InputError(
            f"`top` is {top}, but at least one class is needed.", "Give 1 or more.", code="too-few-classes"
        )
    source = images if isinstance(images, NamedImages) else open_named(_texts(images))
    require_onnx([path_of(model)], provider)
    subject = _Subject.of(open_model(model, "predict with"), provider)
    drawing = None if token_map is None else _Drawing.of(subject, Path(token_map), source)
    log = source.log()
    rows: list[Prediction] = []
    progress("Predicting", 0, len(source))
    for batch in batches(source, subject.preprocessing, subject.batch, log=log):
        logits = torch.from_numpy(subject.runner.run(batch.images.numpy())[LOGITS]).double()
        predictions = [
            Prediction(image=name, classes=_best(one, name, subject.classes, top))
            for name, one in zip(batch.names, logits, strict=True)
        ]
        if drawing is not None:
            drawing.add(batch, predictions)
        rows += predictions
        progress("Predicting", len(rows), len(source))
    if drawing is not None:
        drawing.write()
    progress("Predicting", len(source), len(source))
    drawn = () if drawing is None else drawing.notes(len(rows))
    return Predictions(
        model=readable(path_of(model).name),
        sha256=subject.sha256,
        backend=subject.runner.backend,
        precision=subject.runner.precision,
        keep=subject.keep,
        assumed=subject.assumed,
        images=log.document(),
        notes=(*subject.notes, *drawn),
        rows=tuple(rows),
    )


def _texts(images: Path | str | Sequence[Path | str]) -> list[str]:
    return [os.fspath(image) for image in ([images] if isinstance(images, (Path, str)) else images)]


@dataclass(frozen=True)
class _Subject:
    """What predicts: an artifact, or a checkpoint on its fixed path, with what its answers mean."""

    model: Artifact | Checkpoint
    provider: str
    batch: int
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    keep: tuple[int, ...]
    approximator: str
    layout: Layout
    sha256: str
    assumed: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: Artifact | Checkpoint, provider: str) -> Self:
        """Raises InputError for a model without classes, or for a provider of another runtime."""
        if isinstance(model, Checkpoint):
            return cls._of_checkpoint(model, provider)
        manifest = model.manifest
        require_onnxruntime([model], provider)
        require_logits(manifest)
        return cls(
            model=model,
            provider=provider,
            batch=compared_batch(manifest),
            preprocessing=Preprocessing.of(manifest.preprocessing),
            classes=manifest.classes,
            keep=manifest.keep,
            approximator=manifest.config.approximator,
            layout=Layout.of(manifest.config.approximator, manifest.tokens, manifest.rearrange == "plugin"),
            sha256=manifest.sha256,
            assumed=manifest.assumed,
        )

    @classmethod
    def _of_checkpoint(cls, checkpoint: Checkpoint, provider: str) -> Self:
        network = checkpoint.model
        if not network.vit.num_classes:
            raise InputError(
                "This network has no classifier, so it names no classes.",
                "Name a checkpoint that has one, or train one with `init`.",
                code="no-classifier",
            )
        with export_first("predict with"):
            keep = checkpoint.keep_counts()
        return cls(
            model=checkpoint,
            provider=provider,
            batch=BATCH,
            preprocessing=checkpoint.preprocessing,
            classes=checkpoint.classes,
            keep=keep,
            approximator=network.config.approximator,
            layout=Layout.of(network.config.approximator, network.tokens, rearranged=False),
            sha256=checkpoint.file_sha256,
            assumed=checkpoint.assumed,
            notes=checkpoint.notes,
        )

    @cached_property
    def runner(self) -> Runner:
        """What gives the classes: the file as it is deployed."""
        if isinstance(self.model, Checkpoint):
            return _FixedPathRunner(self.model, FixedPath(self.keep, rearranged=False))
        return open_padded(self.model, self.provider)

    @cached_property
    def stages(self) -> Runner:
        """The same, which shows the permutations of its stages too."""
        return self.runner if isinstance(self.model, Checkpoint) else open_with_stages(self.model, self.provider)

    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches; InputError where a token map cannot be drawn of this model."""
        if not self.keep:
            raise InputError(
                "This network is dense: it looks at every token, so there is no token map.",
                "Omit `token_map`.",
                code="token-map-of-dense",
            )
        if isinstance(self.model, Checkpoint):
            rows, columns = self.model.model.vit.patch_embed.grid_size
            return rows, columns
        require_stages_shown(self.model)
        return patch_grid(self.model.manifest)


class _FixedPathRunner:
    """A checkpoint as a `Runner` that shows which tokens its stages chose."""

    backend, precision = "torch", "fp32"

    def __init__(self, checkpoint: Checkpoint, path: FixedPath) -> None:
        self._network, self._path = checkpoint.model, path

    def run(self, images: NDArray[np.float32]) -> dict[str, Array]:
        """See `Runner.run`."""
        with torch.inference_mode():
            out = self._network.forward_fixed(torch.from_numpy(images), self._path)
        perms = {tap_name(trace.index, "perm"): trace.perm.numpy() for trace in out.stages}
        return {LOGITS: out.logits.numpy(), **perms}


@dataclass
class _Drawing:
    """The token map of the first images; written as soon as it has them, so that a full disk is known early."""

    subject: _Subject
    path: Path
    grid: tuple[int, int]
    most: int
    maps: list[TokenMap]
    written: bool = False

    @classmethod
    def of(cls, subject: _Subject, path: Path, source: NamedImages) -> Self:
        """Raises InputError where there is nothing to draw, or where `path` must not or cannot be written."""
        if path.suffix != ".png":
            raise InputError(
                f"{readable(path)} does not end in .png.", "Name a file that does.", code="not-png-name", path=path
            )
        output = Output(path, Kind.TOKEN_MAP)
        require_not_among([output], source.files)
        require_outputs([output], [path_of(subject.model)])
        grid, shape = subject.grid(), subject.preprocessing
        most = min(_MOST_DRAWN, most_maps(shape.height, shape.width))
        if not most:
            message = f"Images of {shape.height} x {shape.width} pixels are too high to be drawn."
            raise InputError(message, "Omit `token_map`.", code="too-high-to-draw")
        return cls(subject, path, grid, most, [])

    def add(self, batch: Batch, predictions: Sequence[Prediction]) -> None:
        """Takes the images that are still wanted."""
        if self.written:
            return
        subject = self.subject
        outputs = subject.stages.run(batch.images.numpy())
        names = {stage: tap_name(stage, "perm") for stage in range(len(subject.keep))}
        perms = {stage: torch.from_numpy(outputs[name]) for stage, name in names.items() if name in outputs}
        best = [one.classes[0].index for one in predictions]
        self.maps += maps_of(batch, perms, subject.keep, subject.layout, self.grid, subject.preprocessing, best)
        if len(self.maps) >= self.most:
            self.write()

    def write(self) -> None:
        """Unless that was done."""
        if not self.written:
            frozen = fate_of_frozen(self.subject.approximator)
            figure = token_map_figure(self.maps[: self.most], self.subject.classes, frozen=frozen)
            write_png(figure, self.path, TOKEN_MAP_TITLE)
        self.written = True

    def notes(self, images: int) -> tuple[str, ...]:
        """What the picture does not show."""
        if images <= self.most:
            return ()
        return (f"The token map shows the first {self.most} of {images} images.",)


def _best(logits: Tensor, image: str, names: Sequence[str], top: int) -> tuple[ClassScore, ...]:
    """The first `top` classes by softmax over float64 [classes]; of equal ones the first in the model's order."""
    if not logits.isfinite().all():
        raise CheckFailedError(
            f"The logits of {image} are not finite.",
            "Look at the checkpoint's weights, or use a wider precision.",
            code="logits-not-finite",
            path=image,
        )
    best = logits.softmax(dim=0).sort(descending=True, stable=True)
    return tuple(
        ClassScore(index=index, name=names[index] if index < len(names) else "", probability=min(1.0, probability))
        for index, probability in zip(best.indices.tolist()[:top], best.values.tolist(), strict=False)
    )
