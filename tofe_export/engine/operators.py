"""How each of the two operators in a graph will be run, and whether its inputs fit it; decided before parsing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import onnx_ir as ir
from tofe_plugins import register
from tofe_plugins.checks import OperatorError, check_counts, check_dtypes, check_ranks
from tofe_plugins.compiler import CompilerError

from tofe_export.documents.manifest import OperatorUse
from tofe_export.engine.backend import Backend, guard_plugins
from tofe_export.errors import InputError, MissingError
from tofe_export.graph.functions import is_operator
from tofe_export.model.operators import PARTITION

_STANDARD = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
_PLUGIN_ATTRIBUTES = ("plugin_namespace", "plugin_version")
_AGAIN = "Start from the file that was exported from the checkpoint."
_NAMES = {ir.DataType.FLOAT: "float32", ir.DataType.FLOAT16: "float16", ir.DataType.BFLOAT16: "bfloat16"}


def prepare_operators(model: ir.Model, backend: Backend, plugin: str) -> list[OperatorUse]:
    """Decides plugin or function body for the file's own operators, registers plugins, and marks the graph in place.

    A node without `plugin_namespace` is expanded from its body even where somebody has registered a plugin.

    Raises:
        InputError: `on` with RTX, an operator that is neither standard nor ours nor defined in the file, or inputs
            that do not fit an operator.
        MissingError: `on` without NVRTC.
    """
    for node in model.graph:
        if node.domain not in _STANDARD and not is_operator(node) and node.op_identifier() not in model.functions:
            raise InputError(
                f"The file needs the operator {_name(node)}, which nothing here provides.",
                _AGAIN,
                code="operator-unknown",
                operator=_name(node),
            )
    nodes = [node for node in model.graph if is_operator(node)]
    for node in nodes:
        _check_inputs(node)
    guard_plugins(backend)
    by, why = _choose(backend, plugin) if nodes else ("function body", "")
    for node in nodes:
        if by == "plugin":
            node.attributes["aot"] = ir.AttrInt64("aot", 1)  # asks TensorRT's parser for the ahead-of-time form
        else:
            if node.op_identifier() not in model.functions:
                raise InputError(
                    f"The file has lost the function body of {_name(node)}, and no plugin can replace it.",
                    f"Some optimizers drop it. {_AGAIN}",
                    code="operator-body-missing",
                    operator=_name(node),
                )
            for name in _PLUGIN_ATTRIBUTES:
                node.attributes.pop(name, None)
    counts = Counter(map(_name, nodes))
    return [OperatorUse(operator=name, nodes=count, by=by, why=why) for name, count in sorted(counts.items())]


def _choose(backend: Backend, plugin: str) -> tuple[str, str]:
    if plugin == "off":
        return "function body", "the plugins are switched off"
    if not backend.hosts_plugins:
        if plugin == "on":
            raise InputError(
                "TensorRT-RTX cannot host plugins.", "Omit `plugin`, or give `backend='tensorrt'`.", code="plugin-rtx"
            )
        return "function body", "TensorRT-RTX cannot host plugins"
    try:
        register()
    except (CompilerError, ImportError) as error:
        if plugin == "on":
            raise MissingError(
                f"The plugins cannot be compiled: {error}",
                "pip install cuda-bindings nvidia-cuda-nvrtc",
                code="plugin-compile",
            ) from error
        return "function body", f"the plugins cannot be compiled here: {error}"
    return "plugin", "compiled by NVRTC and stored in the engine"


def _name(node: ir.Node) -> str:
    return f"{node.domain}::{node.op_type}"


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
        raise InputError(f"{node.name}: {error}", _AGAIN, code="operator-inputs", node=node.name) from error


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
