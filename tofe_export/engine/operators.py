"""Before parsing: how each of our operators in a graph will be run, and whether its inputs fit it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir
from tofe_plugins import register
from tofe_plugins.checks import OperatorError, check_counts, check_dtypes, check_ranks
from tofe_plugins.compiler import CompilerError

from tofe_export.engine.backend import Backend, guard_plugins
from tofe_export.errors import InputError, MissingError
from tofe_export.graph.functions import is_operator
from tofe_export.model.operators import PARTITION

_STANDARD = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
_PLUGIN_ATTRIBUTES = ("plugin_namespace", "plugin_version")
_NAMES = {ir.DataType.FLOAT: "float32", ir.DataType.FLOAT16: "float16", ir.DataType.BFLOAT16: "bfloat16"}


@dataclass(frozen=True)
class OperatorUse:
    """One of the operators a file needs.

    Attributes:
        operator: for example "tofe::TokenPartition".
        nodes: how many nodes of it there are.
        by: "plugin" or "function body".
        why: in words.
    """

    operator: str
    nodes: int
    by: str
    why: str


def prepare_operators(model: ir.Model, backend: Backend, plugin: str) -> list[OperatorUse]:
    """Decides plugin or function body for the file's own operators, registers plugins, and marks the graph so.

    A node without `plugin_namespace` is expanded from its body even where somebody has registered a plugin.

    Args:
        model: changed in place.
        backend: what will parse it.
        plugin: "auto", "on" or "off".

    Raises:
        InputError: `on` with RTX, an operator that is neither standard nor ours nor defined in the file, or inputs
            that do not fit an operator.
        MissingError: `on` without NVRTC.
    """
    nodes = [node for node in model.graph if is_operator(node)]
    _check_known(model)
    for node in nodes:
        _check_inputs(node)
    guard_plugins(backend)
    by, why = _choose(backend, plugin) if nodes else ("function body", "")
    for node in nodes:
        if by == "plugin":
            node.attributes["aot"] = ir.AttrInt64("aot", 1)  # asks TensorRT's parser for the ahead-of-time form
        else:
            _require_body(model, node)
            for name in _PLUGIN_ATTRIBUTES:
                node.attributes.pop(name, None)
    names = sorted({f"{node.domain}::{node.op_type}" for node in nodes})
    return [
        OperatorUse(name, sum(f"{node.domain}::{node.op_type}" == name for node in nodes), by, why) for name in names
    ]


def _choose(backend: Backend, plugin: str) -> tuple[str, str]:
    if plugin == "off":
        return "function body", "--plugin off"
    if not backend.hosts_plugins:
        if plugin == "on":
            raise InputError("TensorRT-RTX cannot host plugins.", "Leave out --plugin on, or take --backend tensorrt.")
        return "function body", "TensorRT-RTX cannot host plugins"
    try:
        register()
    except (CompilerError, ImportError) as error:
        if plugin == "on":
            raise MissingError(
                f"The plugins cannot be compiled: {error}", "pip install cuda-bindings nvidia-cuda-nvrtc"
            ) from error
        return "function body", f"the plugins cannot be compiled here: {error}"
    return "plugin", "compiled by NVRTC and stored in the engine"


def _check_known(model: ir.Model) -> None:
    defined = {(function.domain, function.name) for function in model.functions.values()}
    for node in model.graph:
        if node.domain not in _STANDARD and not is_operator(node) and (node.domain, node.op_type) not in defined:
            raise InputError(
                f"The file needs the operator {node.domain}::{node.op_type}, which nobody here provides.",
                "Start from the file that tofe-export onnx wrote.",
            )


def _require_body(model: ir.Model, node: ir.Node) -> None:
    if not any((f.domain, f.name) == (node.domain, node.op_type) for f in model.functions.values()):
        raise InputError(
            f"The file has lost the function body of {node.domain}::{node.op_type}, and no plugin can stand in for it.",
            "Some optimizers drop it; start from the file that tofe-export onnx wrote.",
        )


def _check_inputs(node: ir.Node) -> None:
    names = ("tokens", "scores") if node.op_type == PARTITION else ("kept", "frozen", "perm")
    values = {name: value for name, value in zip(names, node.inputs, strict=True) if value is not None}
    dtypes = {name: _NAMES.get(value.dtype, value.dtype.name.lower()) for name, value in values.items() if value.dtype}
    shapes = {name: tuple(value.shape) for name, value in values.items() if value.shape is not None}
    try:
        check_dtypes(node.op_type, dtypes)
        check_ranks(node.op_type, {name: len(shape) for name, shape in shapes.items()})
        _check_counts(node, shapes)
    except OperatorError as error:
        raise InputError(f"{node.name}: {error}", "Start from the file that tofe-export onnx wrote.") from error


def _check_counts(node: ir.Node, shapes: Mapping[str, tuple[object, ...]]) -> None:
    prefix = node.attributes.get_int("prefix")
    if node.op_type == PARTITION:
        patches, rows, keep = shapes["scores"][1], shapes["tokens"][1], node.attributes.get_int("keep")
    else:
        patches, kept, frozen = shapes["perm"][1], shapes["kept"][1], shapes["frozen"][1]
        if not (isinstance(kept, int) and isinstance(frozen, int)):
            return
        rows, keep = kept + frozen, kept - prefix
    if isinstance(patches, int) and isinstance(rows, int):
        check_counts(node.op_type, patches, keep, prefix, rows)
