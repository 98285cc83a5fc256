"""From an exported graph to a serialized engine: its precision, its operators, then TensorRT's parser and builder."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from tofe_export.documents.manifest import Network, OperatorUse
from tofe_export.engine.backend import INSTALL, Backend
from tofe_export.engine.callbacks import Log, make_logger, make_monitor
from tofe_export.engine.network import check_precision, describe_network
from tofe_export.engine.operators import prepare_operators
from tofe_export.engine.options import BuildOptions
from tofe_export.errors import CheckFailedError, InputError, MissingError
from tofe_export.files.writing import write_bytes
from tofe_export.graph.stored import serialize
from tofe_export.precision.half import HALVES, PRECISION_NAMES, to_half
from tofe_export.precision.kinds import PRODUCTS
from tofe_export.precision.quantize import FORMATS
from tofe_export.progress import Progress
from tofe_export.runners.base import LargeModel

_NAMES = PRECISION_NAMES | {dtype: name for name, dtype in FORMATS.items()}


@dataclass(frozen=True)
class Built:
    """A finished engine in memory; `operators` says how each of the two operators is run in it."""

    content: bytes
    network: Network
    operators: list[OperatorUse]
    warnings: list[str]


def build_engine(model: ir.Model, backend: Backend, options: BuildOptions, precision: str, progress: Progress) -> Built:
    """Converts, parses and builds.

    Args:
        model: an exported graph, rewritten in place.
        backend, options: what parses it, and what the engine is for.
        precision: what `model` is in.
        progress: called by the parser and the builder.

    Raises:
        InputError: the model cannot be converted to `options.precision` or does not say its types, the parser refuses
            it, or an option does not fit the backend; see `prepare_operators`.
        CheckFailedError: the network does not have the requested precision, or the build fails.
        MissingError: the backend requires a GPU and finds none, or there is too little memory; see
            `prepare_operators`.
        KeyboardInterrupt: Ctrl-C; nothing was written.
    """
    _convert(model, precision, options.precision)
    operators = prepare_operators(model, backend, options.plugin)
    expected = Counter(_precision_of(node) for node in model.graph if node.op_type in PRODUCTS)
    trt, log = backend.module, Log()
    logger = make_logger(trt, log)
    builder = _open_builder(trt, logger, log)
    network = builder.create_network(_strongly_typed(trt))
    parser = trt.OnnxParser(network, logger)
    progress("Parsing", 0, 1)
    file = serialize(model)
    outside = {} if isinstance(file, bytes) else file.weights
    # The network refers to them until it is built.
    weights = {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in outside.items()}
    if not _parse(parser, file, weights, backend):
        reasons = [parser.get_error(index).desc() for index in range(parser.num_errors)] or [log.first_error()]
        refusal = f"The parser of {trt.__name__} refuses the file: {reasons[0]}"
        raise InputError(refusal, "Export it again.", code="parser-refuses")
    progress("Parsing", 1, 1)
    described = describe_network(network)
    check_precision(described, expected)
    config = _configure(builder, network, backend, options, log)
    config.progress_monitor = monitor = make_monitor(trt, progress)
    content = builder.build_serialized_network(network, config)
    if monitor.cancelled:
        raise KeyboardInterrupt
    if content is None:
        raise CheckFailedError(
            f"{trt.__name__} {backend.version} built no engine: {log.first_error()}",
            "Try another precision, a smaller `batch`, or `plugin='off'`.",
            code="build-failed",
        )
    if options.timing_cache is not None:
        with memoryview(config.get_timing_cache().serialize()) as measured:
            write_bytes(options.timing_cache, bytes(measured))
    return Built(bytes(memoryview(content)), described, operators, log.warnings)


def _convert(model: ir.Model, precision: str, wanted: str) -> None:
    if wanted == precision:
        return
    if precision != "fp32" or wanted not in HALVES:
        raise InputError(
            f"The file is in {precision}; it cannot be converted to {wanted}.",
            f"Give `precision={precision!r}`, or start from the float32 file of the checkpoint.",
            code="precision-of-file",
            precision=precision,
        )
    to_half(model, wanted)


def _precision_of(node: ir.Node) -> str:
    """What a matrix product or convolution computes in: behind a DequantizeLinear that of the quantized values."""
    source = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    quantized = source is not None and source.op_type == "DequantizeLinear"
    value = source.inputs[0] if quantized and source is not None else node.outputs[0]
    if value is None or value.dtype not in _NAMES:
        raise InputError(
            f"The file does not say which precision {node.name} computes in.",
            "Start from the file that was exported from the checkpoint.",
            code="precision-unknown",
            node=node.name,
        )
    return _NAMES[value.dtype]


def _parse(parser: Any, model: bytes | LargeModel, weights: dict[str, NDArray[Any]], backend: Backend) -> bool:
    if isinstance(model, bytes):
        return bool(parser.parse(model))
    if not hasattr(parser, "load_initializer"):
        raise MissingError(
            f"{backend.module.__name__} {backend.version} does not take models above 2 GB from memory.",
            f"Install a newer one: {INSTALL[backend.name]}",
            code="large-model",
        )
    loaded = parser.load_model_proto(model.graph) and all(
        parser.load_initializer(name, array.ctypes.data, array.nbytes) for name, array in weights.items()
    )
    return bool(loaded and parser.parse_model_proto())


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


def _configure(builder: Any, network: Any, backend: Backend, options: BuildOptions, log: Log) -> Any:
    trt, config = backend.module, builder.create_builder_config()
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
    if backend.name == "rtx":
        _compatibility_of_rtx(config, backend, options)
    else:
        _compatibility(config, backend, options)
    if options.timing_cache is not None:
        _load_timing_cache(config, backend, options.timing_cache, log)
    return config


def _compatibility(config: Any, backend: Backend, options: BuildOptions) -> None:
    """Which other versions and GPUs may run the engine."""
    trt = backend.module
    if options.compute_capabilities:
        raise InputError(
            "`compute_capabilities` are for TensorRT-RTX.",
            "For TensorRT give `hardware='ampere_plus'`.",
            code="option-of-rtx",
        )
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, options.hardware.upper())


def _compatibility_of_rtx(config: Any, backend: Backend, options: BuildOptions) -> None:
    if options.version_compatible or options.hardware != "none":
        raise InputError(
            "`version_compatible` and `hardware` are for TensorRT, not for TensorRT-RTX.",
            "For RTX name the GPUs: `compute_capabilities=('86', '120')`.",
            code="option-of-tensorrt",
        )
    if options.timing_cache is not None:
        raise InputError(
            "TensorRT-RTX times no kernels, so it has no timing cache.", "Omit `timing_cache`.", code="timing-cache-rtx"
        )
    members = backend.module.ComputeCapability.__members__
    known = {name.removeprefix("SM"): value for name, value in members.items()}
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


def _load_timing_cache(config: Any, backend: Backend, path: Path, log: Log) -> None:
    content = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise InputError(
            f"{backend.module.__name__} does not take the timing cache {path}: {log.first_error()}",
            "It belongs to one GPU and one version; name a new file, or omit it.",
            code="timing-cache-of-another",
            path=path,
        )
