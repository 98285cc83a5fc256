"""The precision that an engine computes in, as the engine inspector reports it."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import Any

# The inspector writes "Half", or in older releases sentences such as "Row major linear FP16 format".
# Longer words first: "bf16" holds no "fp16", but "bfloat16" holds "float".
_WORDS = {
    **{"bf16": "bf16", "bfloat16": "bf16", "fp16": "fp16", "half": "fp16", "fp8": "fp8", "int8": "int8"},
    **{"int32": "int32", "int64": "int64", "fp32": "fp32", "float": "fp32"},
}

_TELLING = 10  # layers


def layer_histogram(information: str) -> dict[str, dict[str, int]]:
    """Layers of a built engine by type and precision of the first output.

    Args:
        information: JSON of the engine inspector (TensorRT document "Engine Inspector"), detailed.
    """
    layers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for layer in json.loads(information).get("Layers", []):
        if isinstance(layer, dict):  # without detailed verbosity a layer is its name alone
            layers[str(layer.get("LayerType", "unknown"))][_precision(layer)] += 1
    return {kind: dict(sorted(counts.items())) for kind, counts in sorted(layers.items())}


def precisions(information: str) -> set[str]:
    """Every precision that some layer of the engine reads or writes."""
    layers = [layer for layer in json.loads(information).get("Layers", []) if isinstance(layer, dict)]
    tensors = [tensor for layer in layers for tensor in (layer.get("Inputs") or []) + (layer.get("Outputs") or [])]
    return {_name(tensor) for tensor in tensors} - {"unknown"}


def lacks_precision(information: str, precision: str) -> bool:
    """Whether the inspector shows an engine that does not compute in `precision`.

    A builder may fuse the whole network into one or two layers, whose inputs and outputs say nothing about what is
    inside; then only the types of the parsed network are known, which were compared before.
    """
    telling = sum(count for counts in layer_histogram(information).values() for count in counts.values())
    return telling >= _TELLING and precision not in precisions(information)


def _precision(layer: dict[str, Any]) -> str:
    outputs = layer.get("Outputs") or [{}]
    return _name(outputs[0])


def _name(tensor: dict[str, Any]) -> str:
    words = str(tensor.get("Format/Datatype", "")).lower()
    return next((name for word, name in _WORDS.items() if word in words), "unknown")
