"""One model in several precisions, compared with float32 and timed beside it on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from tofe_export.artifacts.artifact import Artifact
from tofe_export.artifacts.opened import OpenedOnnx
from tofe_export.data.image_log import ImageLog
from tofe_export.data.images import batches
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.data.sources import class_note, open_source
from tofe_export.documents.fields import Precision
from tofe_export.documents.quantization import PrecisionAgreement, Speed
from tofe_export.engine.backend import gpu_present, open_backend
from tofe_export.engine.options import BatchProfile, BuildOptions
from tofe_export.graph.stored import deserialize, read_onnx, serialize
from tofe_export.parity.reference import OnnxReference
from tofe_export.parity.side_by_side import compare_forms
from tofe_export.parity.tolerances import Overrides, tolerance_of
from tofe_export.precision.half import is_float32, to_half
from tofe_export.precision.quantize import FORMATS
from tofe_export.progress import Progress, tracked
from tofe_export.runners.base import LargeModel, TimedRunner
from tofe_export.runners.onnxruntime_runner import OnnxRuntimeRunner
from tofe_export.timing.groups import engine_session
from tofe_export.timing.interleaved import time_runners
from tofe_export.timing.shipping import REFERENCE

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
    source: Artifact,
    forms: Sequence[Form],
    batch_sizes: Sequence[int],
    rounds: int,
    threads: int | None,
    progress: Progress,
) -> tuple[str, list[Speed]]:
    """Float32 and each form in turn, ratios within each round, in engines where there is a GPU, else in ONNX Runtime.

    Args:
        source: the float32 file.
        forms: what to time beside it.
        batch_sizes: one or more.
        rounds: of interleaved runs at each batch size.
        threads: of ONNX Runtime; None means every processor of this process.
        progress: called after every round.

    Returns:
        The backend's name, and a speed per precision and batch size.
    """
    every, speeds = [Form(REFERENCE, source.path), *forms], []
    runners: Mapping[Precision, TimedRunner]
    if gpu_present():
        runners = _engines(every, batch_sizes, progress)
    else:
        runners = {form.precision: OnnxRuntimeRunner(form.content, threads, form.precision) for form in every}
    for batch in batch_sizes:
        task = f"Timing {', '.join(runners)} at batch {batch}"
        timed = time_runners(list(runners.values()), source.manifest.image_shape, batch, rounds, task, progress)
        speeds += [
            Speed(
                precision=precision,
                batch=batch,
                p50_ms=timings.percentile_ms(50),
                speedup=ratio.median,
                speedup_low=ratio.low,
                speedup_high=ratio.high,
            )
            for precision, (timings, ratio) in zip(runners, timed, strict=True)
        ]
    return runners[REFERENCE].backend, speeds


def _engines(forms: Sequence[Form], batch_sizes: Sequence[int], progress: Progress) -> Mapping[Precision, TimedRunner]:
    """An engine for each form; 8-bit forms get FP16 around them, as `build` does."""
    backend = open_backend("auto")
    sizes = sorted(batch_sizes)
    runners = {}
    for form in forms:
        options = BuildOptions(precision=form.precision, batch=BatchProfile(sizes[0], sizes[-1], sizes[-1]))
        model = read_onnx(form.content) if isinstance(form.content, Path) else deserialize(form.content)
        if form.precision in FORMATS and is_float32(model):
            to_half(model, "fp16")
        runners[form.precision] = engine_session(model, form.precision, backend, options, progress)
    return runners
