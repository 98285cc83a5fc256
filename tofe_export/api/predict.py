"""The classes that a model sees in images, and the tokens it looked at."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tofe_export.api.load import AnyModel, load, path_of
from tofe_export.artifacts.artifact import Artifact, open_artifact
from tofe_export.artifacts.deployed import compared_batch, open_padded, open_with_stages
from tofe_export.artifacts.file_kinds import Kind
from tofe_export.artifacts.outputs import Output, require_outputs
from tofe_export.checkpoints.checkpoint import Checkpoint
from tofe_export.data.images import Batch, batches
from tofe_export.data.named import open_named
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.documents.prediction import ClassScore, Prediction, Predictions
from tofe_export.errors import CheckFailedError, InputError
from tofe_export.files.names import DEPLOYED, expanded, readable
from tofe_export.graph.passes.taps import tap_name
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.selection import Layout
from tofe_export.page.gallery import write_token_maps
from tofe_export.page.token_maps import TokenMap, maps_of, patch_grid
from tofe_export.progress import Progress, silent
from tofe_export.runners.base import LOGITS, Array, Runner
from tofe_export.runners.onnxruntime_runner import CPU

_MOST_DRAWN = 24  # images in a picture: more rows are not looked at
_BATCH = 8


def predict(
    model: AnyModel,
    images: Path | str | Sequence[Path | str],
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
    listed = [images] if isinstance(images, (Path, str)) else images
    source = open_named([os.fspath(image) for image in listed])
    picture = None if token_map is None else expanded(os.fspath(token_map))
    if picture is not None:
        _require_picture(picture, [path_of(model), *source.files])
    model = _found(model)
    opened = _open_checkpoint(model) if isinstance(model, Checkpoint) else _open_artifact(model, provider, picture)
    if picture is not None and not opened.keep:
        raise InputError(
            "This network is dense: it looks at every token, so there is no token map.",
            "Omit `token_map`.",
            code="token-map-of-dense",
        )
    log = source.log()
    rows: list[Prediction] = []
    maps: list[TokenMap] = []
    progress("Predicting", 0, len(source))
    for batch in batches(source, opened.preprocessing, opened.batch, log=log):
        outputs = opened.runner.run(batch.images.numpy())
        found = [
            Prediction(image=name, classes=_best(logits, name, opened.classes, top))
            for name, logits in zip(batch.names, _logits(outputs), strict=True)
        ]
        if picture is not None and len(rows) < _MOST_DRAWN:
            maps += opened.maps(batch, outputs, found)
        rows += found
        progress("Predicting", len(rows), len(source))
    notes = []
    if picture is not None:
        write_token_maps(maps[:_MOST_DRAWN], opened.classes, picture, opened.layout.discarded)
        if len(rows) > _MOST_DRAWN:
            notes.append(f"The token map shows the first {_MOST_DRAWN} of {len(rows)} images.")
    return Predictions(
        model=readable(path_of(model).name),
        sha256=opened.sha256,
        backend=opened.runner.backend,
        precision=opened.runner.precision,
        keep=opened.keep,
        assumed=opened.assumed,
        images=log.document(),
        notes=tuple(notes),
        rows=tuple(rows),
    )


@dataclass(frozen=True)
class _Opened:
    """A model ready to run, with what its answers mean."""

    runner: Runner
    batch: int
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    keep: tuple[int, ...]
    layout: Layout
    grid: tuple[int, int] | None
    sha256: str
    assumed: tuple[str, ...]

    def maps(self, batch: Batch, outputs: Mapping[str, Array], found: Sequence[Prediction]) -> list[TokenMap]:
        """One per image, from the permutations among `outputs`."""
        names = {stage: tap_name(stage, "perm") for stage in range(len(self.keep))}
        perms = {stage: torch.from_numpy(outputs[name]) for stage, name in names.items() if name in outputs}
        best = [one.classes[0].index for one in found]
        assert self.grid is not None  # opened for a picture
        return maps_of(batch, perms, self.keep, self.layout, self.grid, self.preprocessing, best)


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


def _require_picture(path: Path, inputs: Sequence[Path]) -> None:
    if path.suffix != ".png":
        raise InputError(
            f"{readable(path)} does not end in .png.", "Name a file that does.", code="not-png-name", path=path
        )
    require_outputs([Output(path, Kind.TOKEN_MAP)], inputs)


def _found(model: AnyModel) -> Artifact | Checkpoint:
    if not isinstance(model, (str, Path)):
        return model
    path = expanded(os.fspath(model))
    return open_artifact(path) if path.suffix in DEPLOYED else load(path)


def _open_checkpoint(checkpoint: Checkpoint) -> _Opened:
    network, path = checkpoint.model, FixedPath(checkpoint.keep_counts(), rearranged=False)
    rows, columns = network.vit.patch_embed.grid_size
    return _Opened(
        runner=_FixedPathRunner(checkpoint, path),
        batch=_BATCH,
        preprocessing=checkpoint.preprocessing,
        classes=checkpoint.classes,
        keep=path.keep,
        layout=Layout.of(network.config.approximator, network.tokens, path.rearranged),
        grid=(rows, columns),
        sha256=checkpoint.file_sha256,
        assumed=checkpoint.assumed,
    )


def _open_artifact(artifact: Artifact, provider: str, picture: Path | None) -> _Opened:
    manifest = artifact.manifest
    preprocessing = Preprocessing.of(manifest.preprocessing)
    open_runner = open_padded if picture is None else open_with_stages
    return _Opened(
        runner=open_runner(artifact, provider),
        batch=compared_batch(manifest),
        preprocessing=preprocessing,
        classes=manifest.classes,
        keep=manifest.keep,
        layout=Layout.of(manifest.config.approximator, manifest.tokens, manifest.rearrange == "plugin"),
        grid=None if picture is None else patch_grid(manifest),
        sha256=manifest.sha256,
        assumed=manifest.assumed,
    )


def _logits(outputs: Mapping[str, Array]) -> Tensor:
    """float64 [B, classes]."""
    if LOGITS not in outputs:
        raise InputError(
            "This model returns features but no logits, so it names no classes.",
            "Export it with `outputs` that include logits.",
            code="no-logits",
        )
    return torch.from_numpy(outputs[LOGITS]).double()


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
