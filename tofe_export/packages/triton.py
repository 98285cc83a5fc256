"""A model repository for Triton Inference Server: config.pbtxt, and a numbered folder for each version.

Field names are those of Triton's `model_config.proto`; parameters those in the README of each backend.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tofe_export.artifacts.artifact import Artifact
from tofe_export.documents.machine import processors
from tofe_export.documents.manifest import EngineManifest, OnnxManifest, ProgramManifest
from tofe_export.errors import InputError
from tofe_export.packages.interface import Interface, Value
from tofe_export.runners.base import LOGITS

Backend = Literal["onnxruntime", "openvino", "tensorrt", "python"]
PYTHON_MODEL = Path(__file__).with_name("triton_model.py")
LABELS, CONFIG = "labels.txt", "config.pbtxt"
MARK = "# Written by tofe-export package, anew with each version of the model."
_FILES: dict[Backend, str] = {
    "onnxruntime": "model.onnx",
    "openvino": "model.onnx",
    "tensorrt": "model.plan",
    "python": "model.onnx",
}
_TYPES = {
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "bfloat16": "TYPE_BF16",
    "int64": "TYPE_INT64",
    "int32": "TYPE_INT32",
    "uint8": "TYPE_UINT8",
}


@dataclass(frozen=True)
class TritonSettings:
    """How Triton runs a model.

    Attributes:
        instances: copies that answer at the same time.
        threads: of one instance, on processors; None shares all of this machine among the instances. Triton's own
            default is one.
        batch: the most images that requests are put together to.
        delay_us: how long a request waits for others, in microseconds.
        gpu: whether instances are on GPUs.
    """

    instances: int = 1
    threads: int | None = None
    batch: int = 8
    delay_us: int = 100
    gpu: bool = False


def backend_of(artifact: Artifact, python: bool, gpu: bool = False) -> Backend:
    """What runs the artifact in Triton.

    Raises:
        InputError: it has no backend for such a file, or none that computes on GPUs where they are wanted.
    """
    backend = _backend_of(artifact, python)
    if gpu and backend in ("openvino", "python"):
        raise InputError(
            f"The backend {backend} computes on processors.",
            "Leave `gpu` out, or package a file for ONNX Runtime, or an engine of TensorRT.",
            code="backend-without-gpu",
        )
    return backend


def _backend_of(artifact: Artifact, python: bool) -> Backend:
    manifest = artifact.manifest
    if isinstance(manifest, ProgramManifest):
        raise InputError(
            f"{artifact.path} is a program for phones; Triton has no backend for it.",
            "Package the ONNX file that it was made from.",
            code="program-for-server",
            path=artifact.path,
        )
    if isinstance(manifest, EngineManifest):
        if python or manifest.backend.name == "rtx":
            what = "engines of TensorRT-RTX" if manifest.backend.name == "rtx" else "engines in Python"
            raise InputError(
                f"{artifact.path} cannot be served: Triton does not load {what}.",
                "Package the ONNX file that it was built from, or build it with `backend='tensorrt'`.",
                code="engine-for-triton",
                path=artifact.path,
            )
        return "tensorrt"
    if python:
        if manifest.runtime == "openvino":
            raise InputError(
                f"{artifact.path} was optimized for OpenVINO, and the Python model runs ONNX Runtime.",
                "Package the file that it was made of, or leave `python` out.",
                code="openvino-in-python",
                path=artifact.path,
            )
        return "python"
    return manifest.runtime


def file_of(backend: Backend) -> str:
    """What the model is called in the folder of its version."""
    return _FILES[backend]


def config(name: str, artifact: Artifact, backend: Backend, settings: TritonSettings) -> str:
    """The text of config.pbtxt.

    Raises:
        InputError: an engine that takes no single image.
    """
    interface = Interface.of(artifact)
    least, most = interface.batches
    if least > 1:
        raise InputError(
            f"{artifact.path} takes no batch below {least}, and Triton sends single images too.",
            "Build it for batches from 1.",
            code="engine-batch-for-triton",
            path=artifact.path,
        )
    batch = settings.batch if most is None else min(settings.batch, most)
    # By its README OpenVINO's backend refuses batches smaller than the largest, so there each request brings its own.
    batched = backend != "openvino"
    labelled = LABELS if artifact.manifest.classes else ""
    lines = [
        MARK,
        f'name: "{name}"',
        'platform: "tensorrt_plan"' if backend == "tensorrt" else f'backend: "{backend}"',
        *(['default_model_filename: "model.onnx"'] if backend == "openvino" else []),
        f"max_batch_size: {batch if batched else 0}",
        *(_tensor("input", value, batched) for value in interface.inputs),
        *(_tensor("output", value, batched, labelled) for value in interface.outputs),
        _instances(settings, backend),
        *(_parameter(key, value) for key, value in _parameters(artifact, backend, settings)),
        "version_policy { latest { num_versions: 1 } }",
    ]
    if batched:
        lines.append(f"dynamic_batching {{ max_queue_delay_microseconds: {settings.delay_us} }}")
        lines += [_warm_up(artifact, value, size) for value in interface.inputs for size in sorted({1, batch})]
    return "\n".join(lines) + "\n"


def threads_of(artifact: Artifact, settings: TritonSettings) -> int:
    """Of one instance on processors: given, or found by `tune`, or a share of this machine's."""
    manifest = artifact.manifest
    tuned = manifest.options.session.threads if isinstance(manifest, OnnxManifest) else None
    return settings.threads or tuned or max(1, processors() // settings.instances)


def interface_of(text: str) -> list[str]:
    """The lines of a configuration by `config` that clients and versions depend on."""
    kinds = ("backend:", "platform:", "input ", "output ")
    return [line for line in text.splitlines() if line.startswith(kinds)]


def labels(artifact: Artifact) -> str:
    """A line for each class, for Triton's classification extension."""
    return "".join(f"{' '.join(name.split())}\n" for name in artifact.manifest.classes)


def _tensor(kind: str, value: Value, batched: bool, labelled: str = "") -> str:
    dims = ", ".join(map(str, value.dims if batched else (-1, *value.dims)))
    names = f' label_filename: "{labelled}"' if labelled and value.name == LOGITS else ""
    return f'{kind} {{ name: "{value.name}" data_type: {_TYPES[value.dtype]} dims: [{dims}]{names} }}'


def _instances(settings: TritonSettings, backend: Backend) -> str:
    kind = "KIND_GPU" if settings.gpu or backend == "tensorrt" else "KIND_CPU"
    return f"instance_group {{ count: {settings.instances} kind: {kind} }}"


def _parameters(artifact: Artifact, backend: Backend, settings: TritonSettings) -> Iterable[tuple[str, str]]:
    manifest = artifact.manifest
    if backend == "tensorrt" or not isinstance(manifest, OnnxManifest):
        return []
    threads = str(threads_of(artifact, settings))
    if backend == "python":
        return [("threads", threads)]
    if backend == "openvino":
        return [("INFERENCE_NUM_THREADS", threads), ("NUM_STREAMS", "1"), ("PERFORMANCE_HINT", "LATENCY")]
    return [("intra_op_thread_count", threads), ("inter_op_thread_count", "1")]


def _parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'


def _warm_up(artifact: Artifact, value: Value, batch: int) -> str:
    """Zeros before the first request; of an image of any size, one of the input's size."""
    shape = artifact.manifest.preprocessing
    sides = iter((shape.height, shape.width))
    dims = ", ".join(str(side if side > 0 else next(sides)) for side in value.dims)
    data = f"data_type: {_TYPES[value.dtype]} dims: [{dims}] zero_data: true"
    return (
        f'model_warmup {{ name: "batch {batch}" batch_size: {batch} '
        f'inputs {{ key: "{value.name}" value {{ {data} }} }} }}'
    )
