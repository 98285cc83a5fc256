"""An ONNX file as a graph."""

from __future__ import annotations

import os
from pathlib import Path

import onnx_ir as ir

from tofe_export.errors import InputError
from tofe_export.files.reading import require_file

_AGAIN = "Export it again from its checkpoint."


def read_onnx(path: Path) -> ir.Model:
    """An ONNX file as an IR model.

    Raises:
        InputError: not an ONNX file.
    """
    require_file(path)
    try:
        model = ir.load(os.path.realpath(path))  # external data is beside the file itself, not beside a link to it
    except Exception as error:  # a damaged file can lead protobuf and onnx_ir anywhere
        raise InputError(
            f"{path} is not an ONNX file, or it is damaged.", _AGAIN, code="not-onnx", path=path
        ) from error
    functions = model.functions.values()
    if not model.graph.outputs or not _is_whole(model.graph) or not all(_is_whole(body) for body in functions):
        raise InputError(f"{path} is not an ONNX file, or it is damaged.", _AGAIN, code="not-onnx", path=path)
    _require_beside(path, model)
    return model


def _is_whole(graph: ir.Graph | ir.Function) -> bool:
    """Whether every name is text and every value that a node reads comes from somewhere; onnx_ir loads others too."""
    known = {id(value) for value in graph.inputs}
    if isinstance(graph, ir.Graph):
        known |= {id(value) for value in graph.initializers.values()}
    for node in graph:
        read = [value for value in node.inputs if value is not None]
        if not all(value.producer() is not None or id(value) in known for value in read):
            return False
        names = [node.name or "", node.op_type, node.domain, *(value.name for value in (*read, *node.outputs))]
        if not all(isinstance(name, str) for name in names):
            return False
    return all(isinstance(value.name, str) for value in graph.outputs)


def _require_beside(path: Path, model: ir.Model) -> None:
    """Raises InputError where a weight would be read from outside the model's folder, through a link too."""
    folder = os.path.realpath(os.path.dirname(os.path.realpath(path)))  # noqa: PTH120 - the real file's
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if not isinstance(tensor, ir.ExternalTensor):
            continue
        location = str(tensor.location)
        if os.path.commonpath([folder, os.path.realpath(os.path.join(folder, location))]) != folder:  # noqa: PTH118
            raise InputError(
                f"{path} would read weights from {location}, which is not beside it.",
                _AGAIN,
                code="external-data-outside",
                path=path,
            )
