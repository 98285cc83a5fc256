"""Which nodes of an exported graph can be quantized, and what kind of layer each belongs to.

A recipe speaks of kinds, never of single nodes: "keep the head in high precision".
"""

from __future__ import annotations

import onnx_ir as ir

from tofe_export.precision.half import score_heads

ATTENTION = "attention"
KINDS = ("patch_embed", "qkv", ATTENTION, "proj", "fc1", "fc2", "approximator", "selector", "head")
"""`attention` are the two products of computed values; all others multiply with weights."""

_MATMUL_TYPES = ("MatMul", "Gemm", "Conv")
_BY_NAME = ((".selector", "selector"), (".approximator", "approximator"))
_BY_MODULE = ((".proj", "proj"), (".fc1", "fc1"), (".fc2", "fc2"))


def quantizable(graph: ir.Graph) -> dict[str, str]:
    """Node name -> kind, for every node that could be computed in 8 bits.

    The linear ends of the selectors are not among them: a keep score that is rounded to 8 bits ties with its
    neighbours. Neither are products with a constant on the left (averages over tokens).
    """
    scoring = score_heads(graph)
    found = {}
    for node in graph:
        if node.op_type not in _MATMUL_TYPES or id(node) in scoring or _constant(node.inputs[0]):
            continue
        found[str(node.name)] = kind_of(node)
    return found


def kind_of(node: ir.Node) -> str:
    """The kind of a matrix product or convolution, by the module it is named after and by what it multiplies."""
    name = str(node.name)
    for part, kind in _BY_NAME:
        if part in name:
            return kind
    if node.op_type == "Conv" or "patch_embed" in name:
        return "patch_embed"
    if not _constant(node.inputs[1]):
        return ATTENTION
    module = name.rsplit("/", 1)[0]
    for ending, kind in _BY_MODULE:
        if module.endswith(ending):
            return kind
    # A last block that was cut to its prefix rows computes its queries, keys and values under its stage's name.
    return "qkv" if module.endswith(".qkv") or module.startswith("stages.") else "head"


def _constant(value: ir.Value | None) -> bool:
    return value is not None and value.is_initializer()
