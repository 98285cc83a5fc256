"""What TensorRT's parser made of an ONNX graph: layers, their precision, inputs and outputs.

The network is strongly typed: the types in the graph are the engine's. So the precision can be read back from the
parsed network on any machine, and it is, before the engine is built.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from tofe_export.documents.manifest import Network
from tofe_export.errors import CheckFailedError

_HEAVY = ("MATRIX_MULTIPLY", "CONVOLUTION")
_PLUGINS = ("PLUGIN", "PLUGIN_V2", "PLUGIN_V3")
_SHORT = {"FLOAT": "fp32", "HALF": "fp16"}


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


def heavy(network: Network) -> dict[str, int]:
    """Matrix products and convolutions by precision: they take most of the time."""
    counts: Counter[str] = Counter()
    for kind in _HEAVY:
        counts.update(network.layers.get(kind, {}))
    return dict(counts)


def heavy_layers(network: Network) -> dict[str, dict[str, int]]:
    """The same by type of layer, for people."""
    return {kind: network.layers[kind] for kind in _HEAVY if kind in network.layers}


def check_precision(network: Network, expected: dict[str, int]) -> None:
    """Raises CheckFailedError unless `heavy(network)` is `expected`, the precisions of the graph."""
    if heavy(network) != expected:
        raise CheckFailedError(
            "The parsed network does not have the requested precision: its matrix products and convolutions are "
            f"{_listed(heavy(network))} instead of {_listed(expected)}.",
            "Please report this model.",
            code="network-precision",
        )


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"
