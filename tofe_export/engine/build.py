"""ONNX bytes to a serialized engine, and what the parsed network says about its precision.

The network is strongly typed: the types in the graph are the engine's. So what was asked for can be read back from the
parsed network on any machine, and it is, before anything is called done.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tofe_export.artifacts.files import write_bytes
from tofe_export.engine.backend import INSTALL, Backend
from tofe_export.engine.callbacks import Cancelled, Log, Report, make_logger, make_monitor
from tofe_export.engine.options import BuildOptions
from tofe_export.errors import CheckFailedError, InputError, MissingError
from tofe_export.runners.base import LargeModel

_HEAVY = ("MATRIX_MULTIPLY", "CONVOLUTION")
_PLUGINS = ("PLUGIN", "PLUGIN_V2", "PLUGIN_V3")
_SHORT = {"FLOAT": "fp32", "HALF": "fp16"}


@dataclass
class Network:
    """What the parser made of the file.

    Attributes:
        layers: number of layers by type and precision, {"SOFTMAX": {"fp32": 12}}; it is that of the first output, but
            for matrix products and convolutions that read quantized values that of those values.
        plugins: names of the plugin layers.
        inputs, outputs: name to [precision, shape], -1 for the batch.
    """

    layers: dict[str, dict[str, int]]
    plugins: list[str]
    inputs: dict[str, tuple[str, list[int]]]
    outputs: dict[str, tuple[str, list[int]]]

    @property
    def heavy(self) -> dict[str, int]:
        """Matrix products and convolutions by precision: where the time goes."""
        found: Counter[str] = Counter()
        for kind in _HEAVY:
            found.update(self.layers.get(kind, {}))
        return dict(found)


@dataclass
class Built:
    """A finished engine in memory."""

    content: bytes
    network: Network
    warnings: list[str] = field(default_factory=list)


def build_engine(
    model: bytes | LargeModel, backend: Backend, options: BuildOptions, expected_heavy: dict[str, int], report: Report
) -> Built:
    """Parses and builds.

    Args:
        model: serialized ONNX, in the precision that is wanted.
        backend: from `open_backend`.
        options: see there.
        expected_heavy: matrix products and convolutions by precision that the ONNX graph holds.
        report: progress.

    Raises:
        InputError: the parser refuses the file, or an option does not fit the backend.
        CheckFailedError: the network does not have the precision that was asked for, or the build fails.
        MissingError: the backend finds no GPU and needs one, or too little memory.
        KeyboardInterrupt: Ctrl-C; nothing was written.
    """
    trt, log = backend.module, Log()
    logger = make_logger(trt, log)
    builder = _open_builder(trt, logger, log)
    network = builder.create_network(_strongly_typed(trt))
    parser = trt.OnnxParser(network, logger)
    report("Parsing", 0, 1)
    weights = _weights_of(model)  # the network refers to them until it is built
    if not _parse(parser, model, weights, backend):
        reasons = [parser.get_error(index).desc() for index in range(parser.num_errors)] or [log.first_error()]
        raise InputError(f"The parser of {backend.module.__name__} refuses the file: {reasons[0]}", "Export it again.")
    report("Parsing", 1, 1)
    described = describe_network(network)
    check_precision(described, expected_heavy)
    cancelled = Cancelled()
    config = _configure(trt, builder, network, backend, options, log)
    config.progress_monitor = make_monitor(trt, report, cancelled)
    content = builder.build_serialized_network(network, config)
    if cancelled.happened:
        raise KeyboardInterrupt
    if content is None:
        raise CheckFailedError(
            f"{backend.module.__name__} {backend.version} built no engine: {log.first_error()}",
            "Try another precision, a smaller --batch, or --plugin off.",
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
        )
    if not parser.load_model_proto(model.graph):
        return False
    if not all(parser.load_initializer(name, array.ctypes.data, array.nbytes) for name, array in weights.items()):
        return False
    return bool(parser.parse_model_proto())


def describe_network(network: Any) -> Network:
    """Layer types with their precision, plugin layers, inputs and outputs of a parsed network."""
    layers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    plugins = []
    dequantized: dict[str, str] = {}  # tensor -> the precision it had before
    for layer in (network.get_layer(index) for index in range(network.num_layers)):
        kind = layer.type.name
        precision = precision_name(layer.get_output_type(0))
        if kind == "DEQUANTIZE":
            dequantized[layer.get_output(0).name] = precision_name(layer.get_input(0).dtype)
        elif kind in _HEAVY:  # behind a DEQUANTIZE it computes in 8 bits, whatever type it hands on
            precision = dequantized.get(layer.get_input(0).name, precision)
        layers[kind][precision] += 1
        if kind in _PLUGINS:
            plugins.append(layer.name)
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    return Network(
        {kind: dict(sorted(counts.items())) for kind, counts in sorted(layers.items())},
        plugins,
        {tensor.name: (precision_name(tensor.dtype), list(tensor.shape)) for tensor in inputs},
        {tensor.name: (precision_name(tensor.dtype), list(tensor.shape)) for tensor in outputs},
    )


def precision_name(dtype: Any) -> str:
    """`DataType.HALF` -> "fp16"; what has no such name keeps its own, in small letters."""
    return _SHORT.get(dtype.name, str(dtype.name).lower())


def check_precision(network: Network, expected_heavy: dict[str, int]) -> None:
    """Raises CheckFailedError unless the network's matrix products and convolutions have the graph's precisions."""
    if network.heavy != expected_heavy:
        raise CheckFailedError(
            f"The parsed network does not have the precision that was asked for: matrix products and convolutions are "
            f"{_counts(network.heavy)} instead of {_counts(expected_heavy)}.",
            "Please report this model.",
        )


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


def _open_builder(trt: Any, logger: Any, log: Log) -> Any:
    try:
        return trt.Builder(logger)
    except (TypeError, RuntimeError) as error:  # pybind's answer to a null pointer
        raise MissingError(
            f"{trt.__name__} cannot start here: {log.first_error()}",
            "It needs an NVIDIA GPU and driver; --backend rtx builds without one.",
        ) from error


def _strongly_typed(trt: Any) -> int:
    """TensorRT 10 has to be told; from 11 on there is nothing else."""
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
    if backend.name == "rtx":
        if options.version_compatible or options.hardware != "none":
            raise InputError(
                "--version-compatible and --hardware-compat are options of TensorRT, not of TensorRT-RTX.",
                "For RTX name the GPUs with --compute-capability 86,120.",
            )
        if options.timing_cache is not None:
            raise InputError("TensorRT-RTX times no kernels, so it has no timing cache.", "Leave --timing-cache away.")
        known = {name.removeprefix("SM"): value for name, value in trt.ComputeCapability.__members__.items()}
        if unknown := [name for name in options.compute_capabilities if name not in known]:
            numbers = ", ".join(sorted((name for name in known if name.isdecimal()), key=int))
            raise InputError(
                f"TensorRT-RTX {backend.version} has no compute capability {unknown[0]}.", f"It knows {numbers}."
            )
        config.num_compute_capabilities = len(options.compute_capabilities)
        for index, name in enumerate(options.compute_capabilities):
            config.set_compute_capability(known[name], index)
        return
    if options.compute_capabilities:
        raise InputError(
            "--compute-capability is an option of TensorRT-RTX.", "For TensorRT take --hardware-compat ampere_plus."
        )
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, options.hardware.upper())


def _load_timing_cache(config: Any, backend: Backend, path: Path | None, log: Log) -> None:
    if path is None:
        return
    known = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(known)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise InputError(
            f"{backend.module.__name__} does not take the timing cache {path}: {log.first_error()}",
            "It belongs to one GPU and one version; name a new file, or leave it out.",
        )


def _keep_timing_cache(config: Any, path: Path | None) -> None:
    if path is not None:
        with memoryview(config.get_timing_cache().serialize()) as content:
            write_bytes(path, bytes(content))
