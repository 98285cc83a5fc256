"""What is timed: a deployed model or a checkpoint, each beside its own dense backbone on the same backend."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from tofe_export.artifacts.manifest import read_manifest
from tofe_export.artifacts.names import distinct_names
from tofe_export.checkpoints.checkpoint import load
from tofe_export.engine.backend import open_backend
from tofe_export.engine.build import build_engine
from tofe_export.engine.options import BuildOptions
from tofe_export.engine.prepare import prepare
from tofe_export.engine.runtime import EngineSession, load_engine
from tofe_export.errors import InputError
from tofe_export.graph.export import export_dense
from tofe_export.graph.stored import serialize
from tofe_export.model.allocation import AtMost
from tofe_export.model.backbones import image_shape
from tofe_export.model.config import ToFeConfig
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.model.tofe import ToFe, build_tofe
from tofe_export.precision.calibration import read_by
from tofe_export.precision.half import to_half
from tofe_export.precision.quantize import FORMATS, quantize
from tofe_export.precision.recipe import Recipe
from tofe_export.runners.base import Runner
from tofe_export.runners.onnxruntime_runner import CPU, OnnxRuntimeRunner
from tofe_export.runners.torch_runner import TorchRunner


@dataclass(frozen=True)
class Subject:
    """A model to time.

    Attributes:
        name: for tables.
        runner: how to run it.
        image_shape: (D, H, W).
        gmacs: cost of one image.
    """

    name: str
    runner: Runner
    image_shape: tuple[int, int, int]
    gmacs: float


@dataclass(frozen=True)
class Group:
    """A dense baseline and what is compared with it; timed together, in turn."""

    dense: Subject
    others: list[Subject]


def open_groups(paths: list[Path], threads: int, provider: str = CPU) -> list[Group]:
    """One group per backend and dense backbone, in the order the files were given.

    Args:
        paths: ONNX files and engines with manifests, and checkpoints.
        threads: threads each of them may use.
        provider: where ONNX Runtime computes.

    Raises:
        InputError: a file that is missing, damaged, or of another kind.
        MissingError: an engine or a provider that cannot run here.
    """
    groups: dict[tuple[str, str], Group] = {}
    for path, name in zip(paths, distinct_names(paths), strict=True):
        if path.suffix == ".onnx":
            opened, key = _onnx(path, name, threads, provider, groups)
        elif path.suffix == ".engine":
            opened, key = _engine(path, name, groups)
        else:
            opened, key = _checkpoint(path, name, groups)
        groups[key] = opened
    return list(groups.values())


_Groups = dict[tuple[str, str], Group]


def _onnx(path: Path, name: str, threads: int, provider: str, groups: _Groups) -> tuple[Group, tuple[str, str]]:
    manifest = read_manifest(path)
    key = (f"onnxruntime {provider}", _backbone(ToFeConfig.from_dict(manifest["config"])))
    runner = OnnxRuntimeRunner(path, threads, manifest["precision"], provider)
    mine = Subject(name, runner, _shape(manifest), manifest["gmacs"])
    if key in groups:
        return Group(groups[key].dense, [*groups[key].others, mine]), key
    # Latency does not depend on the weights' values, so the dense twin is made anew from the configuration.
    twin = _twin(path, manifest)
    baseline = OnnxRuntimeRunner(serialize(export_dense(twin)), threads, provider=provider)
    return Group(Subject(_dense_name(twin), baseline, _shape(manifest), dense_macs(twin.vit) / 1e9), [mine]), key


def _engine(path: Path, name: str, groups: _Groups) -> tuple[Group, tuple[str, str]]:
    session = load_engine(path)
    manifest = read_manifest(path)
    options = BuildOptions.from_dict(manifest["options"])
    key = (f"{session.backend} {session.precision}", _backbone(ToFeConfig.from_dict(manifest["config"])))
    mine = Subject(name, session, _shape(manifest), manifest["gmacs"])
    if key in groups:
        return Group(groups[key].dense, [*groups[key].others, mine]), key
    # The dense twin is built here and now, with the same options, for a fair comparison.
    twin = _twin(path, manifest)
    backend = open_backend(session.backend)
    model, precision = _dense_like(export_dense(twin), manifest)
    prepared = prepare(model, backend, options, precision)
    built = build_engine(prepared.content, backend, options, prepared.heavy, lambda task, done, total: None)
    runner = EngineSession(built.content, backend, options.precision)
    return Group(Subject(_dense_name(twin), runner, _shape(manifest), dense_macs(twin.vit) / 1e9), [mine]), key


def _twin(path: Path, manifest: dict[str, Any]) -> ToFe:
    """The network that the manifest describes, unless the file is too small for it: a weight takes a byte or more."""
    held = path.stat().st_size + (manifest.get("external_data") or {"bytes": 0})["bytes"]
    error = InputError(f"{path} is too small for the network that its manifest describes.", "Export it again.")
    with AtMost(held, error):
        return build_tofe(ToFeConfig.from_dict(manifest["config"])).eval()


def _dense_like(model: ir.Model, manifest: dict[str, Any]) -> tuple[ir.Model, str]:
    """The dense graph quantized as the engine is, with made-up ranges: latency does not depend on them."""
    if manifest["precision"] not in FORMATS:
        return model, "fp32"
    policy = Recipe.from_dict(manifest["calibration"]["recipe"]).quantize
    made = quantize(model, dict.fromkeys(read_by(model), 1.0), policy, manifest["precision"]).model
    if manifest["around"] == "fp16":
        to_half(made, "fp16")
    return made, manifest["precision"]


def _checkpoint(path: Path, name: str, groups: _Groups) -> tuple[Group, tuple[str, str]]:
    try:
        checkpoint = load(path)
        model, keep = checkpoint.model, checkpoint.keep_counts()
    except InputError as error:
        if "--" not in error.next_step or "tofe-export" in error.next_step:
            raise
        # What it lacks are options of `onnx`, which `bench` does not have.
        step = f"{error.next_step} Those are options of tofe-export onnx: time what it writes."
        raise InputError(error.message, step) from error
    key = ("torch", _backbone(model.config))
    runner = TorchRunner(lambda images: model.forward_fixed(images, keep, rearrange=False).logits)
    shape = image_shape(model.vit)
    mine = Subject(name, runner, shape, tofe_macs(model, [float(count) for count in keep]) / 1e9)
    if key in groups:
        return Group(groups[key].dense, [*groups[key].others, mine]), key
    dense = Subject(_dense_name(model), TorchRunner(model.vit), shape, dense_macs(model.vit) / 1e9)
    return Group(dense, [mine]), key


def _backbone(config: ToFeConfig) -> str:
    """Equal for networks with the same dense baseline."""
    return f"{config.backbone} {sorted(config.backbone_args.items())}"


def _shape(manifest: dict[str, Any]) -> tuple[int, int, int]:
    size = manifest["preprocessing"]
    return 3, int(size["height"]), int(size["width"])


def _dense_name(model: ToFe) -> str:
    return f"{model.config.backbone} (dense)"
