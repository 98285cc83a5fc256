"""Artifacts and checkpoints, each timed beside its own dense backbone on the same backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import torch

from tofe_export.artifacts.artifact import Artifact
from tofe_export.checkpoints.checkpoint import Checkpoint
from tofe_export.documents.benchmark import Benchmark, BenchRow, BenchSettings
from tofe_export.documents.machine import describe_machine, describe_versions
from tofe_export.documents.manifest import EngineManifest
from tofe_export.documents.recipe import QuantizePolicy
from tofe_export.engine.backend import Backend, open_backend
from tofe_export.engine.build import build_engine
from tofe_export.engine.options import BuildOptions
from tofe_export.engine.runtime import EngineSession
from tofe_export.errors import InputError
from tofe_export.files.names import distinct_names
from tofe_export.graph.export import export_dense
from tofe_export.graph.stored import serialize
from tofe_export.model.allocation import AtMost
from tofe_export.model.backbones import image_shape
from tofe_export.model.config import ToFeConfig
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.model.tofe import ToFe, build_tofe
from tofe_export.precision.calibration import read_by
from tofe_export.precision.half import to_half
from tofe_export.precision.quantize import FORMATS, quantize_graph
from tofe_export.progress import Progress
from tofe_export.runners.base import TimedRunner
from tofe_export.runners.onnxruntime_runner import CPU, OnnxRuntimeRunner
from tofe_export.runners.torch_runner import TorchRunner
from tofe_export.timing.interleaved import time_runners


@dataclass(frozen=True)
class Subject:
    """A model to time: its name for tables, how to run it, and GMACs of one image."""

    name: str
    runner: TimedRunner
    gmacs: float


@dataclass(frozen=True)
class Group:
    """A dense backbone and what is compared with it, on images (D, H, W); timed together, in turn."""

    dense: Subject
    image_shape: tuple[int, int, int]
    others: list[Subject]


def open_groups(
    models: Sequence[Artifact | Checkpoint], threads: int, progress: Progress, provider: str = CPU
) -> list[Group]:
    """One group per backend and dense backbone, in the order of the models, each of which may use `threads`.

    `progress` is of the engines that are built for comparison; `provider` is where ONNX Runtime computes.

    Raises:
        InputError: a model that a runtime refuses, or a checkpoint without keep counts.
        MissingError: an engine or a provider that cannot run here.
    """
    groups: dict[tuple[str, str], Group] = {}
    # A checkpoint that was never in a file is called "checkpoint".
    files = [model.path or Path(f"checkpoint {place}") for place, model in enumerate(models, start=1)]
    for model, name in zip(models, distinct_names(files), strict=True):
        if isinstance(model, Checkpoint):
            config, subject = model.model.config, _of_checkpoint(model, name)
        else:
            config = ToFeConfig.of(model.manifest.config)
            subject = Subject(name, model.open(provider, threads), model.manifest.gmacs)
        place = subject.runner.backend
        if isinstance(model, Artifact) and isinstance(model.manifest, EngineManifest):
            place = f"{place} {subject.runner.precision}"  # that of its dense engine too
        key = place, f"{config.backbone} {sorted(config.backbone_args.items())}"
        if key not in groups:
            groups[key] = _dense_group(model, threads, progress, provider)
        groups[key].others.append(subject)
    return list(groups.values())


def time_groups(
    groups: Sequence[Group], batches: Sequence[int], rounds: int, threads: int, progress: Progress
) -> Benchmark:
    """A row per subject and batch size, the dense backbone first.

    Latency is one call; preprocessing is not in it. On the CPU it goes from a float32 batch in host memory to outputs
    in host memory. On a GPU batch and outputs lie in GPU memory, and no copy is timed; an engine's call is the replay
    of a CUDA graph, as trtexec times it.

    `rounds` are of interleaved runs at each batch size; `threads` are for the record, and for PyTorch.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        rows = [row for group in groups for batch in batches for row in _rows(group, batch, rounds, progress)]
    finally:
        torch.set_num_threads(before)
    return Benchmark(
        machine=describe_machine(),
        versions=describe_versions(),
        settings=BenchSettings(threads=threads, rounds=rounds, batches=tuple(batches)),
        rows=tuple(rows),
    )


def engine_session(
    model: ir.Model, precision: str, backend: Backend, options: BuildOptions, progress: Progress
) -> EngineSession:
    """An engine of a graph in `precision`, which is rewritten in place, built and loaded here and now."""
    built = build_engine(model, backend, options, precision, progress)
    return EngineSession(built.content, backend, options.precision)


def _of_checkpoint(checkpoint: Checkpoint, name: str) -> Subject:
    try:
        keep = checkpoint.keep_counts()
    except InputError as error:
        step = "Export it with `keep`, and time that."
        raise InputError(error.message, step, code=error.code, path=checkpoint.path) from error
    model, path = checkpoint.model, FixedPath(keep, rearranged=False)
    runner = TorchRunner(lambda images: model.forward_fixed(images, path).logits)
    return Subject(name, runner, tofe_macs(model, [float(count) for count in keep]) / 1e9)


def _dense_group(model: Artifact | Checkpoint, threads: int, progress: Progress, provider: str) -> Group:
    """The dense backbone of a model on the same backend, with nothing beside it yet.

    Latency does not depend on the weights' values, so that of an artifact is made from its configuration. That of an
    engine is built here and now, with the options of the engine it is compared with.
    """
    runner: TimedRunner
    if isinstance(model, Checkpoint):
        network = model.model
        runner = TorchRunner(network.vit)
    else:
        network = _twin(model)
        graph, manifest = export_dense(network), model.manifest
        if isinstance(manifest, EngineManifest):
            options, backend = BuildOptions.of(manifest.options), open_backend(manifest.backend.name)
            runner = engine_session(*_dense_like(graph, manifest), backend, options, progress)
        else:
            runner = OnnxRuntimeRunner(serialize(graph), threads, provider=provider)
    dense = Subject(f"{network.config.backbone} (dense)", runner, dense_macs(network.vit) / 1e9)
    return Group(dense, image_shape(network.vit), [])


def _twin(artifact: Artifact) -> ToFe:
    """The network that the manifest describes, with random weights, which are the same each time.

    A file that is too small for it is refused: a weight takes a byte or more.
    """
    data = artifact.manifest.external_data
    held = artifact.path.stat().st_size + (0 if data is None else data.bytes)
    error = InputError(
        f"{artifact.path} is too small for the network that its manifest describes.",
        "Export it again.",
        code="file-too-small",
        path=artifact.path,
    )
    with AtMost(held, error), torch.random.fork_rng(devices=[]):  # the caller's own random numbers go on
        torch.manual_seed(0)
        return build_tofe(ToFeConfig.of(artifact.manifest.config)).eval()


def _dense_like(model: ir.Model, manifest: EngineManifest) -> tuple[ir.Model, str]:
    """The dense graph quantized as the engine is, with made-up ranges: latency does not depend on them."""
    if manifest.precision not in FORMATS:
        return model, "fp32"
    policy = QuantizePolicy() if manifest.calibration is None else manifest.calibration.recipe.quantize
    quantized = quantize_graph(model, dict.fromkeys(read_by(model), 1.0), policy, manifest.precision).model
    if manifest.around == "fp16":
        to_half(quantized, "fp16")
    return quantized, manifest.precision


def _rows(group: Group, batch: int, rounds: int, progress: Progress) -> list[BenchRow]:
    dense, subjects = group.dense, [group.dense, *group.others]
    runners, task = [subject.runner for subject in subjects], f"{dense.runner.backend}, batch {batch}"
    timed = time_runners(runners, group.image_shape, batch, rounds, task, progress)
    return [
        BenchRow(
            name=subject.name,
            backend=subject.runner.backend,
            precision=subject.runner.precision,
            batch=batch,
            calls=len(timings.runs_ms),
            p50_ms=timings.percentile_ms(50),
            p90_ms=timings.percentile_ms(90),
            p99_ms=timings.percentile_ms(99),
            images_per_s=batch / timings.percentile_ms(50) * 1e3,
            gmacs=subject.gmacs,
            speedup=speedup.median,
            speedup_low=speedup.low,
            speedup_high=speedup.high,
            realised_fraction=speedup.median / (dense.gmacs / subject.gmacs),
            dense=subject is dense,
        )
        for subject, (timings, speedup) in zip(subjects, timed, strict=True)
    ]
