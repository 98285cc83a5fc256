"""From a serialized ONNX graph to a serialized engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tofe_export.documents.manifest import Network
from tofe_export.engine.backend import INSTALL, Backend
from tofe_export.engine.callbacks import Cancelled, Log, make_logger, make_monitor
from tofe_export.engine.network import check_precision, describe_network
from tofe_export.engine.options import BuildOptions
from tofe_export.errors import CheckFailedError, InputError, MissingError
from tofe_export.files.writing import write_bytes
from tofe_export.progress import Progress
from tofe_export.runners.base import LargeModel


@dataclass
class Built:
    """A finished engine in memory."""

    content: bytes
    network: Network
    warnings: list[str] = field(default_factory=list)


def build_engine(
    model: bytes | LargeModel,
    backend: Backend,
    options: BuildOptions,
    expected_heavy: dict[str, int],
    progress: Progress,
) -> Built:
    """Parses and builds.

    Args:
        model: serialized ONNX, in the precision of the engine.
        backend: from `open_backend`.
        options: see there.
        expected_heavy: matrix products and convolutions by precision that the ONNX graph holds.
        progress: called by the parser and the builder.

    Raises:
        InputError: the parser refuses the file, or an option does not fit the backend.
        CheckFailedError: the network does not have the requested precision, or the build fails.
        MissingError: the backend requires a GPU and finds none, or there is too little memory.
        KeyboardInterrupt: Ctrl-C; nothing was written.
    """
    trt, log = backend.module, Log()
    logger = make_logger(trt, log)
    builder = _open_builder(trt, logger, log)
    network = builder.create_network(_strongly_typed(trt))
    parser = trt.OnnxParser(network, logger)
    progress("Parsing", 0, 1)
    weights = _weights_of(model)  # the network refers to them until it is built
    if not _parse(parser, model, weights, backend):
        reasons = [parser.get_error(index).desc() for index in range(parser.num_errors)] or [log.first_error()]
        refusal = f"The parser of {backend.module.__name__} refuses the file: {reasons[0]}"
        raise InputError(refusal, "Export it again.", code="parser-refuses")
    progress("Parsing", 1, 1)
    described = describe_network(network)
    check_precision(described, expected_heavy)
    cancelled = Cancelled()
    config = _configure(trt, builder, network, backend, options, log)
    config.progress_monitor = make_monitor(trt, progress, cancelled)
    content = builder.build_serialized_network(network, config)
    if cancelled.happened:
        raise KeyboardInterrupt
    if content is None:
        raise CheckFailedError(
            f"{backend.module.__name__} {backend.version} built no engine: {log.first_error()}",
            "Try another precision, a smaller `batch`, or `plugin='off'`.",
            code="build-failed",
        )
    _keep_timing_cache(config, options.timing_cache)
    return Built(bytes(memoryview(content)), described, log.warnings)


def _weights_of(model: bytes | LargeModel) -> dict[str, NDArray[Any]]:
    weights = {} if isinstance(model, bytes) else model.weights
    return {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in weights.items()}


def _parse(parser: Any, model: bytes | LargeModel, weights: dict[str, NDArray[Any]], backend: Backend) -> bool:
    if isinstance(model, bytes):
        return bool(parser.parse(model))
    if not hasattr(parser, "load_initializer"):
        raise MissingError(
            f"{backend.module.__name__} {backend.version} does not take models above 2 GB from memory.",
            f"Install a newer one: {INSTALL[backend.name]}",
            code="large-model",
        )
    if not parser.load_model_proto(model.graph):
        return False
    if not all(parser.load_initializer(name, array.ctypes.data, array.nbytes) for name, array in weights.items()):
        return False
    return bool(parser.parse_model_proto())


def _open_builder(trt: Any, logger: Any, log: Log) -> Any:
    try:
        return trt.Builder(logger)
    except (TypeError, RuntimeError) as error:  # pybind's answer to a null pointer
        raise MissingError(
            f"{trt.__name__} cannot start here: {log.first_error()}",
            "It requires an NVIDIA GPU and driver; `backend='rtx'` builds without one.",
            code="backend-cannot-start",
        ) from error


def _strongly_typed(trt: Any) -> int:
    """TensorRT 10 requires the flag; from 11 on every network is strongly typed."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _configure(trt: Any, builder: Any, network: Any, backend: Backend, options: BuildOptions, log: Log) -> Any:
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        rest = tuple(tensor.shape)[1:]
        sizes = (options.batch.minimum, options.batch.optimum, options.batch.maximum)
        profile.set_shape(tensor.name, *((size, *rest) for size in sizes))
    config.add_optimization_profile(profile)
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib * 2**20)
    _compatibility(trt, config, backend, options)
    _load_timing_cache(config, backend, options.timing_cache, log)
    return config


def _compatibility(trt: Any, config: Any, backend: Backend, options: BuildOptions) -> None:
    """Which other versions and GPUs may run the engine."""
    if backend.name == "rtx":
        _compatibility_of_rtx(trt, config, backend, options)
        return
    if options.compute_capabilities:
        raise InputError(
            "`compute_capabilities` are for TensorRT-RTX.",
            "For TensorRT give `hardware='ampere_plus'`.",
            code="option-of-rtx",
        )
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, options.hardware.upper())


def _compatibility_of_rtx(trt: Any, config: Any, backend: Backend, options: BuildOptions) -> None:
    if options.version_compatible or options.hardware != "none":
        raise InputError(
            "`version_compatible` and `hardware` are for TensorRT, not for TensorRT-RTX.",
            "For RTX name the GPUs: `compute_capabilities=('86', '120')`.",
            code="option-of-tensorrt",
        )
    if options.timing_cache is not None:
        raise InputError(
            "TensorRT-RTX times no kernels, so it has no timing cache.",
            "Omit `timing_cache`.",
            code="timing-cache-rtx",
        )
    known = {name.removeprefix("SM"): value for name, value in trt.ComputeCapability.__members__.items()}
    if unknown := [name for name in options.compute_capabilities if name not in known]:
        numbers = ", ".join(sorted((name for name in known if name.isdecimal()), key=int))
        raise InputError(
            f"TensorRT-RTX {backend.version} has no compute capability {unknown[0]}.",
            f"It has {numbers}.",
            code="compute-capability",
            name=unknown[0],
        )
    config.num_compute_capabilities = len(options.compute_capabilities)
    for index, name in enumerate(options.compute_capabilities):
        config.set_compute_capability(known[name], index)


def _load_timing_cache(config: Any, backend: Backend, path: Path | None, log: Log) -> None:
    if path is None:
        return
    content = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise InputError(
            f"{backend.module.__name__} does not take the timing cache {path}: {log.first_error()}",
            "It belongs to one GPU and one version; name a new file, or omit it.",
            code="timing-cache-of-another",
            path=path,
        )


def _keep_timing_cache(config: Any, path: Path | None) -> None:
    if path is not None:
        with memoryview(config.get_timing_cache().serialize()) as content:
            write_bytes(path, bytes(content))
