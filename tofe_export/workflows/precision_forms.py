"""One model in several precisions, compared and timed beside float32 on what this machine has."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from tofe_export.bench.timing import measure, paired_ratio
from tofe_export.data.image_log import ImageLog
from tofe_export.data.images import batches
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.data.sources import class_note, open_source
from tofe_export.engine.backend import gpu_present, open_backend
from tofe_export.engine.build import build_engine
from tofe_export.engine.options import BatchProfile, BuildOptions
from tofe_export.engine.prepare import prepare
from tofe_export.engine.runtime import EngineSession
from tofe_export.graph.stored import deserialize, serialize
from tofe_export.precision.half import to_half
from tofe_export.precision.quantize import FORMATS
from tofe_export.runners.base import LargeModel, Runner
from tofe_export.runners.onnxruntime_runner import OnnxRuntimeRunner
from tofe_export.verify.compare import compare_forms
from tofe_export.verify.comparison import Comparison
from tofe_export.verify.opened import OpenedOnnx, read_onnx
from tofe_export.verify.reference import OnnxReference
from tofe_export.verify.tolerances import Overrides, tolerance_of
from tofe_export.workflows.progress import Report, tracked
from tofe_export.workflows.verdict import REFERENCE, Speed

_BATCH = 8


@dataclass(frozen=True)
class Form:
    """A precision's ONNX graph: in a file, or in memory."""

    precision: str
    content: Path | bytes | LargeModel


@dataclass(frozen=True)
class Timing:
    """How forms are timed.

    Attributes:
        batches: batch sizes.
        rounds: of interleaved runs at each batch size.
        threads: of ONNX Runtime; None means every processor of this process.
    """

    batches: tuple[int, ...] = (1, 8)
    rounds: int = 15
    threads: int | None = None


def half_of(model: ir.Model) -> Form:
    """The FP16 form of a float32 model; `model` is used up."""
    to_half(model, "fp16")
    return Form("fp16", serialize(model))


def image_shape(manifest: Mapping[str, Any]) -> tuple[int, int, int]:
    """(D, H, W) of the model's input."""
    size = manifest["preprocessing"]
    return 3, int(size["height"]), int(size["width"])


def against_float32(
    source: Path,
    forms: Sequence[Form],
    manifest: Mapping[str, Any],
    data: str,
    samples: int,
    overrides: Overrides,
    report: Report,
    log: ImageLog,
) -> list[Comparison]:
    """Each form against the float32 file in ONNX Runtime, by the rules of `tofe-export verify`.

    Args:
        source: the float32 file.
        forms: what to compare with it.
        manifest: of `source`.
        data: where held-out images come from, in the words of --data.
        samples: at most so many of them.
        overrides: the user's own limits.
        report: progress.
        log: told which images were read and which were left out.

    Raises:
        InputError: see `open_source`.
    """
    images = open_source(data, "val")
    preprocessing = Preprocessing.from_dict(manifest["preprocessing"])
    loop = batches(images, preprocessing, _BATCH, limit=samples, log=log)
    steps = -(-min(samples, len(images)) // _BATCH)
    note = class_note(images, tuple(manifest.get("classes", ())))
    asked = any(limit == "accuracy_lost" for _, limit in overrides)
    if note and (images.classes or asked):  # that a flat folder has no labels is no news
        log.note(note)
    return compare_forms(
        OnnxReference(source, manifest),
        {form.precision: OpenedOnnx(form.content, form.precision) for form in forms},
        tracked(loop, "Comparing with float32", steps, report),
        not note,
        {form.precision: tolerance_of(form.precision, overrides) for form in forms},
    )


def time_forms(
    source: Path, forms: Sequence[Form], manifest: Mapping[str, Any], timing: Timing, report: Report
) -> tuple[str, list[Speed]]:
    """Float32 and each form in turn, ratios within each round.

    In engines where there is a GPU, else in ONNX Runtime.

    Returns:
        The backend's name, and a speed per precision and batch size.
    """
    every = [Form(REFERENCE, source), *forms]
    runners = _engines(every, timing, report) if gpu_present() else _sessions(every, timing)
    found = []
    for batch in timing.batches:
        images = np.random.default_rng(0).standard_normal((batch, *image_shape(manifest)), dtype=np.float32)
        task = f"Timing {', '.join(runner.precision for runner in runners)} at batch {batch}"
        report(task, 0, timing.rounds)
        tell = functools.partial(_tell, report, task, timing.rounds)
        timings = measure([runner.bind(images) for runner in runners], timing.rounds, tell)
        found += [
            Speed(runner.precision, batch, mine.percentile_ms(50), paired_ratio(timings[0], mine))
            for runner, mine in zip(runners, timings, strict=True)
        ]
    return runners[0].backend, found


def _tell(report: Report, task: str, total: int, done: int) -> None:
    report(task, done, total)


def _sessions(forms: Sequence[Form], timing: Timing) -> list[Runner]:
    return [OnnxRuntimeRunner(form.content, timing.threads, form.precision) for form in forms]


def _engines(forms: Sequence[Form], timing: Timing, report: Report) -> list[Runner]:
    """An engine for each form; 8-bit forms get FP16 around them, as in `tofe-export trt`."""
    backend = open_backend("auto")
    sizes = sorted(timing.batches)
    runners: list[Runner] = []
    for form in forms:
        options = BuildOptions(precision=form.precision, batch=BatchProfile(sizes[0], sizes[-1], sizes[-1]))
        model = read_onnx(form.content) if isinstance(form.content, Path) else deserialize(form.content)
        if form.precision in FORMATS and is_float32(model):
            to_half(model, "fp16")
        prepared = prepare(model, backend, options, form.precision)
        built = build_engine(prepared.content, backend, options, prepared.heavy, report)
        runners.append(EngineSession(built.content, backend, form.precision))
    return runners


def is_float32(model: ir.Model) -> bool:
    """Whether whatever is not quantized is in float32."""
    return not any(value.dtype == ir.DataType.FLOAT16 for node in model.graph for value in node.outputs)
