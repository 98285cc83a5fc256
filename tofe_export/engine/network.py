"""What TensorRT's parser made of an ONNX graph, and what its engine inspector reports of the built engine.

The network is strongly typed: the types in the graph are the engine's. So the precision can be read back from the
parsed network on any machine, and it is, before the engine is built. The inspector's detailed JSON is described in
TensorRT's document "Engine Inspector".
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from tofe_export.documents.manifest import Network
from tofe_export.errors import CheckFailedError

_HEAVY = ("MATRIX_MULTIPLY", "CONVOLUTION")
_PLUGINS = ("PLUGIN", "PLUGIN_V2", "PLUGIN_V3")
_SHORT = {"FLOAT": "fp32", "HALF": "fp16"}
_TELLING = 10  # layers
# The inspector writes "Half", or in older releases sentences such as "Row major linear FP16 format".
# Longer words first: "bf16" holds no "fp16", but "bfloat16" holds "float".
_WORDS = {
    **{"bf16": "bf16", "bfloat16": "bf16", "fp16": "fp16", "half": "fp16", "fp8": "fp8", "int8": "int8"},
    **{"int32": "int32", "int64": "int64", "fp32": "fp32", "float": "fp32"},
}


def describe_network(network: Any) -> Network:
    """The parsed network as the manifest of its engine holds it."""
    layers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    plugins = []
    dequantized: dict[str, str] = {}  # tensor -> the precision before it was dequantized
    for layer in (network.get_layer(index) for index in range(network.num_layers)):
        kind = layer.type.name
        precision = precision_name(layer.get_output_type(0))
        if kind == "DEQUANTIZE":
            dequantized[layer.get_output(0).name] = precision_name(layer.get_input(0).dtype)
        elif kind in _HEAVY:  # behind a DEQUANTIZE it computes in 8 bits, whatever the type of its output
            precision = dequantized.get(layer.get_input(0).name, precision)
        layers[kind][precision] += 1
        if kind in _PLUGINS:
            plugins.append(layer.name)
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    return Network(
        layers={kind: dict(sorted(counts.items())) for kind, counts in sorted(layers.items())},
        plugins=tuple(plugins),
        inputs={tensor.name: (precision_name(tensor.dtype), tuple(tensor.shape)) for tensor in inputs},
        outputs={tensor.name: (precision_name(tensor.dtype), tuple(tensor.shape)) for tensor in outputs},
    )


def precision_name(dtype: Any) -> str:
    """`DataType.HALF` -> "fp16"; a type without such a name keeps its own, in small letters."""
    return _SHORT.get(dtype.name, str(dtype.name).lower())


def heavy_layers(network: Network) -> dict[str, dict[str, int]]:
    """Matrix products and convolutions, which take most of the time: type of layer -> precision -> how many."""
    return {kind: network.layers[kind] for kind in _HEAVY if kind in network.layers}


def check_precision(network: Network, expected: Mapping[str, int]) -> None:
    """Raises CheckFailedError unless the heavy layers have the precisions `expected`, those of the graph."""
    counts: Counter[str] = Counter()
    for by_precision in heavy_layers(network).values():
        counts.update(by_precision)
    if counts != expected:
        raise CheckFailedError(
            "The parsed network does not have the requested precision: its matrix products and convolutions are "
            f"{_listed(counts)} instead of {_listed(expected)}.",
            "Please report this model.",
            code="network-precision",
        )


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


def layer_histogram(information: str) -> dict[str, dict[str, int]]:
    """Layers of a built engine by type and precision of the first output; see `EngineSession.information`."""
    layers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for layer in _layers(information):
        precision = _precision((layer.get("Outputs") or [{}])[0])
        layers[str(layer.get("LayerType", "unknown"))][precision] += 1
    return {kind: dict(sorted(counts.items())) for kind, counts in sorted(layers.items())}


def precisions(information: str) -> set[str]:
    """Every precision that some layer of the engine reads or writes."""
    both = ((layer.get("Inputs") or []) + (layer.get("Outputs") or []) for layer in _layers(information))
    return {_precision(tensor) for tensors in both for tensor in tensors} - {"unknown"}


def lacks_precision(information: str, precision: str) -> bool:
    """Whether the inspector shows an engine that does not compute in `precision`.

    A builder may fuse the whole network into one or two layers, whose inputs and outputs say nothing about what is
    inside; then only the types of the parsed network are known, which were compared before.
    """
    return len(_layers(information)) >= _TELLING and precision not in precisions(information)


def _layers(information: str) -> list[dict[str, Any]]:
    """Without detailed verbosity a layer is its name alone; such layers are omitted."""
    return [layer for layer in json.loads(information).get("Layers", []) if isinstance(layer, dict)]


def _precision(tensor: dict[str, Any]) -> str:
    words = str(tensor.get("Format/Datatype", "")).lower()
    return next((name for word, name in _WORDS.items() if word in words), "unknown")
