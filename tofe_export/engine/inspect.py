"""What the engine inspector says, as a histogram: the precision that really runs."""

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


def layer_histogram(information: str) -> dict[str, dict[str, int]]:
    """Layers of a built engine by type and precision of the first output.

    Args:
        information: JSON of the engine inspector (TensorRT document "Engine Inspector"), detailed.
    """
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for layer in json.loads(information).get("Layers", []):
        if isinstance(layer, dict):  # without detailed verbosity a layer is its name alone
            found[str(layer.get("LayerType", "unknown"))][_precision(layer)] += 1
    return {kind: dict(sorted(counts.items())) for kind, counts in sorted(found.items())}


def precisions(information: str) -> set[str]:
    """Every precision that some layer of the engine writes."""
    return {name for counts in layer_histogram(information).values() for name in counts}


def _precision(layer: dict[str, Any]) -> str:
    outputs = layer.get("Outputs") or [{}]
    words = str(outputs[0].get("Format/Datatype", "")).lower()
    return next((name for word, name in _WORDS.items() if word in words), "unknown")
