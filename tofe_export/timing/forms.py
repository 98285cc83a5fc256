"""One model in several precisions, compared with float32 and timed beside it on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from tofe_export.artifacts.artifact import Artifact
from tofe_export.artifacts.opened import OpenedOnnx
from tofe_export.data.image_log import ImageLog
from tofe_export.data.images import batches
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.data.sources import class_note, open_source
from tofe_export.documents.fields import Precision
from tofe_export.documents.quantization import PrecisionAgreement, Speed
from tofe_export.engine.backend import Backend, backend_for_running
from tofe_export.engine.build import build_engine
from tofe_export.engine.options import BatchProfile, BuildOptions
from tofe_export.graph.stored import deserialize, read_onnx, serialize
from tofe_export.parity.reference import OnnxReference
from tofe_export.parity.side_by_side import compare_forms
from tofe_export.parity.tolerances import Overrides, tolerance_of
from tofe_export.precision.half import is_float32, to_half
from tofe_export.precision.quantize import FORMATS
from tofe_export.progress import Progress, tracked
from tofe_export.runners.base import LargeModel
from tofe_export.timing.dense import Place, write_model
from tofe_export.timing.groups import SEED, Settings
from tofe_export.timing.intervals import speedup
from tofe_export.timing.processes import time_in_processes
from tofe_export.timing.shipping import REFERENCE
from tofe_export.timing.subjects import AnySubject, EngineFile, OnnxFile

_BATCH = 8


@dataclass(frozen=True)
class Form:
    """The ONNX graph of a model in one precision: in a file, or in memory."""

    precision: Precision
    content: Path | bytes | LargeModel


def half_of(model: ir.Model) -> Form:
    """The FP16 form of a float32 model, which is rewritten in place."""
    to_half(model, "fp16")
    return Form("fp16", serialize(model))


def against_float32(
    source: Artifact,
    forms: Sequence[Form],
    data: str,
    samples: int,
    overrides: Overrides,
    log: ImageLog,
    progress: Progress,
) -> list[PrecisionAgreement]:
    """Each form against the float32 file in ONNX Runtime, by the rules of verify.

    Args:
        source: the float32 file.
        forms: what to compare with it.
        data: where held-out images come from, in the words of `data`.
        samples: at most this many of them.
        overrides: the user's own limits.
        log: told which images were read and which were left out.
        progress: called for each batch that is compared.

    Raises:
        InputError: see `open_source`.
    """
    images, manifest = open_source(data, "val"), source.manifest
    preprocessing = Preprocessing.of(manifest.preprocessing)
    loop = batches(images, preprocessing, _BATCH, limit=samples, log=log)
    steps = -(-min(samples, len(images)) // _BATCH)
    note = class_note(images, manifest.classes)
    limited = any(name.rpartition(".")[2] == "accuracy_lost" for name in overrides)
    if note and (images.classes or limited):  # that a flat folder has no labels is nothing new
        log.note(note)
    comparisons = compare_forms(
        OnnxReference(source),
        {form.precision: OpenedOnnx(form.content, precision=form.precision) for form in forms},
        tracked(loop, "Comparing with float32", steps, progress),
        not note,
        {form.precision: tolerance_of(form.precision, overrides) for form in forms},
    )
    pairs = zip(forms, comparisons, strict=True)
    return [PrecisionAgreement(precision=form.precision, **dict(one.agreement())) for form, one in pairs]


def time_forms(
    source: Artifact, forms: Sequence[Form], settings: Settings, progress: Progress
) -> tuple[str, list[Speed]]:
    """Float32 and each form in the same processes, in engines where they run here, else in ONNX Runtime.

    Args:
        source: the float32 file.
        forms: what to time beside it.
        settings: how they are timed.
        progress: called after every round.

    Returns:
        The backend's name, and a speed per precision and batch size, over float32.
    """
    every, speeds = [Form(REFERENCE, source.path), *forms], []
    with tempfile.TemporaryDirectory(prefix="tofe-bench-") as folder:
        place = Place(Path(folder), settings.threads, progress)
        backend = backend_for_running()
        if backend is None:
            subjects = [_onnx_file(form, place) for form in every]
        else:
            subjects = [_engine(form, backend, settings.batches, place) for form in every]
        task = f"Timing {', '.join(form.precision for form in every)}"
        shape, more = source.manifest.image_shape, (SEED, progress, task)
        measured = time_in_processes(subjects, shape, settings.batches, settings.rounds, settings.processes, *more)
    for batch in settings.batches:
        for number, form in enumerate(every):
            timings = measured.of(number, batch)
            ratio = speedup(measured.of(0, batch), timings)
            calls = np.concatenate([one.calls_ms for one in timings])
            speeds.append(
                Speed(
                    precision=form.precision,
                    batch=batch,
                    p50_ms=float(np.median(calls)),
                    speedup=ratio.value,
                    speedup_low=ratio.low,
                    speedup_high=ratio.high,
                    speedups=ratio.by_process,
                )
            )
    return "onnxruntime" if backend is None else backend.name, speeds


def _onnx_file(form: Form, place: Place) -> AnySubject:
    if isinstance(form.content, Path):
        path = form.content
    else:
        path = place.file(".onnx")
        write_model(deserialize(form.content), path)
    return OnnxFile(path=path, threads=place.threads, precision=form.precision)


def _engine(form: Form, backend: Backend, batch_sizes: Sequence[int], place: Place) -> AnySubject:
    """An engine of a form; 8-bit forms get FP16 around them, as `build` does."""
    sizes = sorted(batch_sizes)
    options = BuildOptions(precision=form.precision, batch=BatchProfile(sizes[0], sizes[-1], sizes[-1]))
    model = read_onnx(form.content) if isinstance(form.content, Path) else deserialize(form.content)
    if form.precision in FORMATS and is_float32(model):
        to_half(model, "fp16")
    path = place.file(".engine")
    path.write_bytes(build_engine(model, backend, options, form.precision, place.progress).content)
    return EngineFile(path=path, backend=backend.name, precision=form.precision)
