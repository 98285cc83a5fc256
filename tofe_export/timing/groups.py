"""Artifacts and checkpoints, each timed beside its own dense backbone: same runtime, same precision, same processes."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tofe_export.artifacts.artifact import Artifact, require_engine_fits
from tofe_export.checkpoints.checkpoint import Checkpoint, save
from tofe_export.documents.benchmark import Benchmark, BenchRow, BenchSettings
from tofe_export.documents.machine import describe_machine, describe_versions
from tofe_export.documents.manifest import EngineManifest, OnnxManifest, ProgramManifest
from tofe_export.errors import InputError
from tofe_export.files.names import distinct_names
from tofe_export.model.backbones import image_shape
from tofe_export.model.config import ToFeConfig
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.progress import Progress
from tofe_export.runners.onnxruntime_runner import CPU
from tofe_export.timing.blocks import WARM_UP_CALLS
from tofe_export.timing.dense import Place, dense_twin
from tofe_export.timing.intervals import speedup
from tofe_export.timing.processes import Measured, time_in_processes
from tofe_export.timing.products import onnx_products, openvino_products, torch_products
from tofe_export.timing.subjects import (
    AnyModel,
    AnySubject,
    CheckpointFile,
    EngineFile,
    OnnxFile,
    OnnxProduct,
    OpenVinoFile,
    TorchProduct,
)

SEED = 0
_ENOUGH_FOR_P90, _ENOUGH_FOR_P99 = 100, 1000
"""Calls: ten of them lie beyond the percentile, so that it does not hang on the slowest one."""


@dataclass(frozen=True)
class Settings:
    """How models are timed; see `bench`."""

    batches: tuple[int, ...]
    rounds: int
    processes: int
    threads: int
    provider: str = CPU

    def document(self) -> BenchSettings:
        """For a document, with what is the same each time."""
        return BenchSettings(
            threads=self.threads,
            rounds=self.rounds,
            batches=self.batches,
            processes=self.processes,
            seed=SEED,
            warm_up_calls=WARM_UP_CALLS,
        )


@dataclass(frozen=True)
class Subject:
    """A model to time: its name for tables, how to open it, GMACs of one image, and the hash of its file."""

    name: str
    file: AnyModel
    gmacs: float
    sha256: str = ""


@dataclass(frozen=True)
class Group:
    """A dense backbone and what is compared with it, on images (D, H, W).

    Attributes:
        products: the best that their backend does in their precision, as subjects; none where that is not known.
    """

    dense: Subject
    others: list[Subject]
    image_shape: tuple[int, int, int]
    products: Sequence[AnySubject]


def time_models(models: Sequence[Artifact | Checkpoint], settings: Settings, progress: Progress) -> Benchmark:
    """A row per model and batch size, the dense backbone first.

    Latency is one call; preprocessing is not in it. On the CPU it goes from a float32 batch in host memory to outputs
    in host memory. On a GPU batch and outputs lie in GPU memory, and no copy is timed; an engine's call is the replay
    of a CUDA graph, as trtexec times it.

    Raises:
        InputError: a model that a runtime refuses, or a checkpoint without keep counts.
        MissingError: an engine or a provider that cannot run here.
    """
    with tempfile.TemporaryDirectory(prefix="tofe-bench-") as folder:
        place = Place(Path(folder), settings.threads, progress, settings.provider)
        rows = [row for group in open_groups(models, place) for row in _time(group, settings, progress)]
    return Benchmark(
        machine=describe_machine(), versions=describe_versions(), settings=settings.document(), rows=tuple(rows)
    )


def open_groups(models: Sequence[Artifact | Checkpoint], place: Place) -> list[Group]:
    """One group per backend, precision and dense backbone, in the order of the models.

    Each file is opened here once, so that one that cannot run is known before anything is prepared for it.

    Raises:
        InputError, MissingError: see `time_models`.
    """
    groups: dict[tuple[str, ...], Group] = {}
    # A checkpoint that was never in a file is called "checkpoint".
    files = [model.path or Path(f"checkpoint {number}") for number, model in enumerate(models, start=1)]
    for model, name in zip(models, distinct_names(files), strict=True):
        subject = _SUBJECTS[_kind(model)](model, name, place)
        key = subject.file.backend, subject.file.precision, *_form(model)
        if key not in groups:
            twin = dense_twin(model, subject.file, place)
            groups[key] = Group(
                Subject(f"{twin.network.config.backbone} (dense)", twin.file, dense_macs(twin.network.vit) / 1e9),
                [],
                image_shape(twin.network.vit),
                _PRODUCTS[subject.file.kind](subject.file, place),
            )
        groups[key].others.append(subject)
    return list(groups.values())


def _kind(model: Artifact | Checkpoint) -> str:
    if isinstance(model, Checkpoint):
        return "checkpoint"
    manifest = model.manifest
    if isinstance(manifest, ProgramManifest):
        raise InputError(
            f"{model.path} is a program for phones, and this processor says nothing about those.",
            "Time it on the device, with its runtime's own tool.",
            code="program-not-timed",
            path=model.path,
        )
    return "openvino" if isinstance(manifest, OnnxManifest) and manifest.runtime == "openvino" else manifest.kind


def _form(model: Artifact | Checkpoint) -> tuple[str, str]:
    """What a dense backbone must share with a model besides backend and precision."""
    if isinstance(model, Checkpoint):
        config, rewritten = model.model.config, ""
    else:
        config, rewritten = ToFeConfig.of(model.manifest.config), f"{model.manifest.around}"
        if isinstance(model.manifest, OnnxManifest):
            options = model.manifest.options
            rewritten += f" {options.target} {sorted(options.passes)} {options.arithmetic} {options.session}"
    return rewritten, f"{config.backbone} {sorted(config.backbone_args.items())}"


def _of_checkpoint(model: Artifact | Checkpoint, name: str, place: Place) -> Subject:
    """Saved as this program saves checkpoints, whatever it came from and whether or not it ever was in a file."""
    assert isinstance(model, Checkpoint)
    try:
        keep = model.keep_counts()
    except InputError as error:
        step = "Export it with `keep`, and time that."
        raise InputError(error.message, step, code=error.code, path=model.path) from error
    path = place.file(".pth")
    save(path, dataclasses.replace(model, metrics={}))
    macs = tofe_macs(model.model, [float(kept) for kept in keep])
    return Subject(name, CheckpointFile(path=path, threads=place.threads, keep=keep), macs / 1e9, model.file_sha256)


def _of_onnx(model: Artifact | Checkpoint, name: str, place: Place) -> Subject:
    """In ONNX Runtime or OpenVINO, as its manifest says."""
    assert isinstance(model, Artifact)
    manifest = model.manifest
    assert isinstance(manifest, OnnxManifest)
    options, path, precision = manifest.options, model.path, manifest.precision
    file: OnnxFile | OpenVinoFile = (
        OpenVinoFile(path=path, threads=place.threads, precision=precision, arithmetic=options.arithmetic)
        if manifest.runtime == "openvino"
        else OnnxFile(
            path=path, threads=place.threads, precision=precision, provider=place.provider, session=options.session
        )
    )
    file.open()
    return Subject(name, file, manifest.gmacs, manifest.sha256)


def _of_engine(model: Artifact | Checkpoint, name: str, place: Place) -> Subject:
    assert isinstance(model, Artifact)
    assert isinstance(model.manifest, EngineManifest)
    require_engine_fits(model.path, model.manifest)
    backend, precision = model.manifest.backend.name, model.manifest.precision
    file = EngineFile(path=model.path, backend=backend, precision=precision)
    file.open()
    return Subject(name, file, model.manifest.gmacs, model.manifest.sha256)


_SUBJECTS: Mapping[str, Callable[[Artifact | Checkpoint, str, Place], Subject]] = {
    "checkpoint": _of_checkpoint,
    "onnx": _of_onnx,
    "openvino": _of_onnx,
    "engine": _of_engine,
}
"""The kind of model -> how it is opened; `dense.TWINS` makes the backbone beside it."""


_PRODUCTS: Mapping[str, Callable[[AnyModel, Place], list[AnySubject]]] = {
    "checkpoint": lambda file, place: torch_products(place.threads),
    "onnx": lambda file, place: onnx_products(place.folder, place.threads, file.precision, place.provider),
    "openvino": lambda file, place: openvino_products(place.folder, place.threads, file.precision),
    "engine": lambda file, place: [],
}
"""The kind of subject -> the matrix products that its efficiency is measured by; see `products`."""


def _time(group: Group, settings: Settings, progress: Progress) -> list[BenchRow]:
    subjects = [group.dense, *group.others]
    measured = time_in_processes(
        [*(subject.file for subject in subjects), *group.products],
        group.image_shape,
        settings.batches,
        settings.rounds,
        settings.processes,
        SEED,
        progress,
        f"Timing {group.dense.file.backend} {group.dense.file.precision}",
    )
    best = _best_products(group, measured)
    return [_row(group, place, batch, measured, best) for batch in settings.batches for place in range(len(subjects))]


def _row(group: Group, place: int, batch: int, measured: Measured, best: list[float] | None) -> BenchRow:
    """The row of the subject at a place; `best` is of each process, in MACs per millisecond."""
    subject, dense = [group.dense, *group.others][place], group.dense
    timings = measured.of(place, batch)
    ratio, calls = speedup(measured.of(0, batch), timings), np.concatenate([one.calls_ms for one in timings])
    p50, p90, p99 = (float(value) for value in np.percentile(calls, [50, 90, 99]))
    efficiency = None
    if best is not None:
        rates = [subject.gmacs * 1e9 * batch / one.percentile_ms(50) for one in timings]
        efficiency = float(np.median(np.array(rates) / best))
    return BenchRow(
        name=subject.name,
        backend=dense.file.backend,
        precision=dense.file.precision,
        batch=batch,
        calls=len(calls),
        p50_ms=p50,
        p90_ms=p90 if len(calls) >= _ENOUGH_FOR_P90 else None,
        p99_ms=p99 if len(calls) >= _ENOUGH_FOR_P99 else None,
        images_per_s=batch / p50 * 1e3,
        gmacs=subject.gmacs,
        speedup=ratio.value,
        speedup_low=ratio.low,
        speedup_high=ratio.high,
        speedups=ratio.by_process,
        processes=len(timings),
        realised_fraction=ratio.value / (dense.gmacs / subject.gmacs),
        efficiency=efficiency,
        dense=subject is dense,
        model_sha256=subject.sha256,
    )


def _best_products(group: Group, measured: Measured) -> list[float] | None:
    """MACs per millisecond of the fastest product in each process, in its fastest round: what is possible."""
    rates = []
    for place, product in enumerate(group.products, start=1 + len(group.others)):
        assert isinstance(product, (OnnxProduct, TorchProduct))
        rates.append([product.macs / timings.medians_ms.min() for timings in measured.of(place)])
    return [max(of_process) for of_process in zip(*rates, strict=True)] if rates else None
