"""Gathers the magnitudes of an exported model's values on images: in a stream, resumable, and kept in a file.

The file holds histograms, not ranges: the method, and which layers are quantized, can change without running the
model again. It is bound to the model, its preprocessing and these very images.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from tofe_export.data.images import Batch
from tofe_export.errors import InputError, TofeError
from tofe_export.files.reading import parse_json
from tofe_export.files.writing import write_bytes
from tofe_export.graph.stored import copy_model, serialize
from tofe_export.precision.histogram import BINS, Histogram
from tofe_export.precision.kinds import quantizable
from tofe_export.runners.base import LargeModel
from tofe_export.runners.onnxruntime_runner import OnnxRuntimeRunner

_FORMAT = "tofe-export/calibration/1"
_SAVE_EVERY = 16  # batches
_PARTS = {
    "format": "the version of the file's layout",
    "model": "the model",
    "preprocessing": "how images are prepared",
    "data": "the images",
    "bins": "the number of bins",
}
"""What each entry of a key stands for, in messages."""


@dataclass(frozen=True)
class CalibrationKey:
    """What a calibration belongs to; every attribute is a SHA-256 in hexadecimal.

    Attributes:
        model: of the ONNX file.
        preprocessing: see `Preprocessing.digest`.
        data: of every prepared image, in order; see `hash_images`.
    """

    model: str
    preprocessing: str
    data: str

    def to_dict(self) -> dict[str, Any]:
        """The key with the layout of the file, as it is written there."""
        return {"format": _FORMAT, **vars(self), "bins": BINS}

    def digest(self) -> str:
        """One SHA-256 of the whole key."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()


def hash_images(batches: Iterable[Batch]) -> str:
    """SHA-256 of the prepared images, whatever the size of the batches."""
    digest = hashlib.sha256()
    for batch in batches:
        digest.update(np.ascontiguousarray(batch.images.numpy()).data)
    return digest.hexdigest()


def calibrate(
    model: ir.Model, batches: Iterable[Batch], key: CalibrationKey, cache: Path | None, asked_for: bool = True
) -> dict[str, Histogram]:
    """Runs `model` in ONNX Runtime and counts the magnitudes of every value that a quantizable layer reads.

    Memory holds one batch and the histograms. `cache` is updated during the run: a killed run resumes from it,
    and a finished one is not repeated.

    Args:
        model: an exported float32 model; it is not changed.
        batches: the images of `key.data`, in the same order and batch size at every call.
        key: what the calibration belongs to.
        cache: file to read and write; None keeps nothing.
        asked_for: the user named the cache, so a problem with it is an error; otherwise the calibration ignores it.

    Raises:
        InputError: `cache` belongs to something else or is damaged; an image or a value is not finite (named), or has
            a size that the model does not take.
    """
    tensors = read_by(model)
    histograms, done = {name: Histogram() for name in tensors}, 0
    ignored = () if asked_for else (TofeError, OSError)
    with contextlib.suppress(*ignored):
        if cache is not None and cache.exists():
            histograms, done = _read(cache, key, tensors)

    def save() -> None:
        with contextlib.suppress(*ignored):
            if cache is not None:
                _write(cache, key, histograms, done)

    runner = OnnxRuntimeRunner(_opened(model, tensors))
    seen = fresh = 0
    for batch in batches:
        seen += len(batch.names)
        if seen > done:
            _add(histograms, batch, tensors, runner)
            done, fresh = seen, fresh + 1
            if fresh % _SAVE_EVERY == 0:
                save()
    if fresh:
        save()
    return histograms


def read_by(model: ir.Model) -> list[str]:
    """Names of the computed values that quantizable layers read, without weights."""
    nodes = quantizable(model.graph)
    values = (value for node in model.graph if node.name in nodes for value in node.inputs[:2])
    return list(dict.fromkeys(str(v.name) for v in values if v is not None and not v.is_initializer()))


def _add(histograms: Mapping[str, Histogram], batch: Batch, tensors: list[str], runner: OnnxRuntimeRunner) -> None:
    images = batch.images.numpy()
    _require_finite(images, batch, "the image itself")
    values = {runner.input_name: images, **runner.run(images)}
    for name in tensors:
        _require_finite(values[name], batch, f"the value {name} inside the model")
        histograms[name].add(values[name])


def _require_finite(values: NDArray[Any], batch: Batch, what: str) -> None:
    finite = np.isfinite(values)
    if finite.all():
        return
    count = len(batch.names)
    name = batch.names[int(finite.reshape(count, -1).all(1).argmin()) if len(values) == count else 0]
    raise InputError(
        f"Calibration met NaN or infinity: on {name}, {what} is not finite.",
        "Remove that image; if others do the same, check the checkpoint's weights.",
        code="calibration-not-finite",
        image=name,
    )


def _opened(model: ir.Model, tensors: list[str]) -> bytes | LargeModel:
    copy = copy_model(model)
    shown = {str(value.name) for value in copy.graph.outputs}
    values = {str(value.name): value for node in copy.graph for value in node.outputs}
    copy.graph.outputs.extend(values[name] for name in tensors if name in values and name not in shown)
    return serialize(copy)


def _write(cache: Path, key: CalibrationKey, histograms: Mapping[str, Histogram], done: int) -> None:
    columns = list(histograms.values())
    content = io.BytesIO()
    np.savez_compressed(
        content,
        key=np.array(json.dumps(key.to_dict())),
        done=np.array(done),
        names=np.array(list(histograms)),
        counts=np.stack([histogram.counts for histogram in columns]),
        limits=np.array([histogram.limit for histogram in columns]),
        largest=np.array([histogram.largest for histogram in columns]),
    )
    try:
        write_bytes(cache, content.getvalue())
    except InputError as error:
        raise InputError(
            error.message, "Name another file as `cache`.", code="cache-not-writable", path=cache
        ) from error


def _read(cache: Path, key: CalibrationKey, tensors: list[str]) -> tuple[dict[str, Histogram], int]:
    """The histograms of `tensors` in a calibration file, and how many images they are of."""
    again = f"Delete {cache}, or name another file as `cache`."
    try:
        with np.load(io.BytesIO(cache.read_bytes()), allow_pickle=False) as archive:
            _require_same(parse_json(str(archive["key"]), str(cache), again), key, cache, again)
            names, counts, limits, tops = (archive[name] for name in ("names", "counts", "limits", "largest"))
            done = int(archive["done"])
        if (names.tolist(), counts.shape, counts.dtype) != (tensors, (len(tensors), BINS), np.int64):
            raise ValueError("other values, or counts of another kind")
        powers_of_two = np.isin(np.frexp(limits)[0], (0.0, 0.5)).all()  # or 0, as `Histogram.limit` says
        if done < 0 or not powers_of_two or not (counts >= 0).all() or not ((tops >= 0) & (tops <= limits)).all():
            raise ValueError("numbers that no images give")
    except TofeError:
        raise
    except Exception as error:  # a damaged header can lead zipfile and NumPy anywhere
        raise InputError(
            f"{cache} is not a calibration file, or it is damaged.", again, code="not-calibration", path=cache
        ) from error
    columns = zip(tensors, counts, limits, tops, strict=True)
    return {name: Histogram(row.copy(), float(limit), float(top)) for name, row, limit, top in columns}, done


def _require_same(written: Any, key: CalibrationKey, cache: Path, again: str) -> None:
    """Raises InputError unless the key in a calibration file is `key`; says what differs."""
    expected = key.to_dict()
    known = written if isinstance(written, dict) else {}
    different = [name for name in expected if known.get(name) != expected[name]]
    if different:
        parts = " and ".join(_PARTS[name] for name in different) if known else "everything"
        raise InputError(
            f"The calibration in {cache} was made for something else; what differs: {parts}.",
            again,
            code="calibration-of-another",
            path=cache,
            different=tuple(different),
        )
