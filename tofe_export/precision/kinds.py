"""Which nodes of an exported graph can be quantized, and what kind of layer each belongs to.

A recipe speaks of kinds, never of single nodes: "keep the head in high precision".
"""

from __future__ import annotations

import onnx_ir as ir

from tofe_export.documents.recipe import ATTENTION
from tofe_export.precision.half import score_heads

PRODUCTS = ("MatMul", "Gemm", "Conv")
_OWN_PARTS = (".selector", ".approximator")  # whatever is inside counts to them
_BEHIND_ACTIVATION = ("fc2", "w3", "mlp_out_proj")  # timm's names of a feed-forward part's second layer
_BEHIND_ATTENTION = ("proj", "attn_out_proj", "out_proj")


def quantizable(graph: ir.Graph) -> dict[str, str]:
    """Node name -> kind, for every node that could be computed in 8 bits.

    The linear ends of the selectors are not among them: a keep score that is rounded to 8 bits ties with its
    neighbors. Neither are products with a constant on the left (averages over tokens).
    """
    scoring = score_heads(graph)
    return {
        str(node.name): _kind_of(node)
        for node in graph
        if node.op_type in PRODUCTS and id(node) not in scoring and not _constant(node.inputs[0])
    }


def _kind_of(node: ir.Node) -> str:
    """By the module that a matrix product or convolution is named after, and by what it multiplies."""
    name = str(node.name)
    for part in _OWN_PARTS:
        if part in name:
            return part.removeprefix(".")
    if node.op_type == "Conv" or ".patch_embed." in name:
        return "patch_embed"
    if not _constant(node.inputs[1]):
        return ATTENTION
    module = name.rpartition("/")[0]
    layer = module.rpartition(".")[2]
    if ".mlp." in module or layer in _BEHIND_ACTIVATION:
        return "fc2" if layer in _BEHIND_ACTIVATION else "fc1"
    # A last block that was cut to its prefix rows computes its queries, keys and values under its stage's name.
    if ".blocks." in module or module.startswith("stages."):
        return "proj" if layer in _BEHIND_ATTENTION else "qkv"
    return "head"


def _constant(value: ir.Value | None) -> bool:
    return value is not None and value.is_initializer()
