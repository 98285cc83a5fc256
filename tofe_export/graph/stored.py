"""A graph handed to and from a file, a runtime or another pass.

Below protobuf's limit it is in one piece, above it with its weights outside.

A copy shares the weights, which no pass changes in place. In a file above the limit the weights lie in one file of
external data beside it (onnx/docs/ExternalData.md), each at a multiple of the page size, so that a runtime can map it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from tofe_export.errors import InputError
from tofe_export.files.reading import require_file
from tofe_export.runners.base import LargeModel

LIMIT_BYTES = 2_147_483_647
"""The most that one protobuf message can hold."""

_AGAIN = "Export it again from its checkpoint."
_PAGE = 4096
_LEAST = 1024  # bytes; what is smaller stays in the graph
_ROOM = 1 << 26  # bytes; more than any graph without its weights takes
_IN_MEMORY = "weights in memory"  # stands for the file where there is none


def read_onnx(path: Path) -> ir.Model:
    """An ONNX file as an IR model.

    Raises:
        InputError: not an ONNX file.
    """
    require_file(path)
    try:
        model = ir.load(os.path.realpath(path))  # external data is beside the file itself, not beside a link to it
        bodies = model.functions.values()
        if not model.graph.outputs or not _is_whole(model.graph) or not all(_is_whole(body) for body in bodies):
            raise ValueError("no outputs, or names and values that are not there")
        if _calls_itself(model):
            raise ValueError("a function that calls itself")
    except Exception as error:  # a damaged file can lead protobuf and onnx_ir anywhere
        raise InputError(
            f"{path} is not an ONNX file, or it is damaged.", _AGAIN, code="not-onnx", path=path
        ) from error
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


def _calls_itself(model: ir.Model) -> bool:
    """Whether a function does, be it through others."""
    left = {name: {node.op_identifier() for node in body} for name, body in model.functions.items()}
    while leaves := [name for name, calls in left.items() if not calls & left.keys()]:
        for name in leaves:
            del left[name]
    return bool(left)


def _require_beside(path: Path, model: ir.Model) -> None:
    """Raises InputError where a weight would be read from outside the model's folder, through a link too."""
    folder = os.path.dirname(os.path.realpath(path))  # noqa: PTH120 - the real file's
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


def serialize(model: ir.Model) -> bytes | LargeModel:
    """The model for a runtime, which leaves it as it is."""
    if fits(model):
        return _whole_bytes(model)
    with _emptied(model) as outside:
        graph = ir.to_proto(model).SerializeToString()
    return LargeModel(graph, {name: tensor_of(value) for name, value in outside.items()})


def deserialize(content: bytes | LargeModel) -> ir.Model:
    """What `serialize` was given."""
    if isinstance(content, bytes):
        return ir.from_proto(onnx.load_from_string(content))
    model = ir.from_proto(onnx.load_from_string(content.graph))
    for name, tensor in content.weights.items():
        model.graph.initializers[name].const_value = tensor
    return model


def copy_model(model: ir.Model) -> ir.Model:
    """A copy that may be rewritten; it shares the weights, which only ever are replaced."""
    with _emptied(model) as outside:
        copied = ir.from_proto(ir.to_proto(model))
    for name, value in outside.items():
        copied.graph.initializers[name].const_value = value.const_value
    return copied


def whole_proto(model: ir.Model) -> onnx.ModelProto:
    """The model with every weight in it; above the limit it exists in memory only."""
    external = {name: v for name, v in model.graph.initializers.items() if isinstance(v.const_value, ir.ExternalTensor)}
    loaded = {name: ir.Tensor(tensor_of(v).numpy(), dtype=v.dtype, name=name) for name, v in external.items()}
    with _swapped(external, loaded):
        return ir.to_proto(model)


def fits(model: ir.Model) -> bool:
    """Whether one protobuf message can hold the model."""
    weights = sum(tensor_of(value).nbytes for value in _large_weights(model).values())
    if not weights <= LIMIT_BYTES < weights + _ROOM:  # only near the limit does the graph's own size matter
        return bool(weights <= LIMIT_BYTES)
    with _emptied(model):
        return bool(weights + ir.to_proto(model).ByteSize() <= LIMIT_BYTES)  # placeholders take more than headers do


def write(model: ir.Model, path: Path, write_data: Callable[[Callable[[BinaryIO], None]], str]) -> None:
    """Writes the model to `path`, the same bytes each time; above the limit with a file of external data.

    `write_data` writes that file with the function it is given, and returns its name.
    """
    if fits(model):
        path.write_bytes(_whole_bytes(model))
        return
    outside = _large_weights(model)
    offsets, end = {}, 0
    for name, value in outside.items():
        offsets[name] = -(-end // _PAGE) * _PAGE
        end = offsets[name] + tensor_of(value).nbytes

    def write_weights(file: BinaryIO) -> None:
        for name, value in outside.items():
            file.write(bytes(offsets[name] - file.tell()))
            file.write(tensor_of(value).tobytes())

    location = write_data(write_weights)
    placed = {name: _external(value, location, offsets[name]) for name, value in outside.items()}
    with _swapped(outside, placed):
        path.write_bytes(ir.to_proto(model).SerializeToString(deterministic=True))


def _whole_bytes(model: ir.Model) -> bytes:
    return bytes(whole_proto(model).SerializeToString(deterministic=True))


def _large_weights(model: ir.Model) -> dict[str, ir.Value]:
    known = model.graph.initializers.items()
    return {n: v for n, v in known if v.const_value is not None and v.const_value.nbytes >= _LEAST}


def tensor_of(value: ir.Value | None) -> Any:
    """What an initializer holds."""
    assert value is not None
    assert value.const_value is not None
    return value.const_value


def _external(value: ir.Value, location: str, offset: int) -> ir.ExternalTensor:
    tensor = tensor_of(value)
    return ir.ExternalTensor(
        location, offset, tensor.nbytes, tensor.dtype, shape=tensor.shape, name=str(value.name), base_dir=""
    )


def add_initializer(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    """A new initializer of the graph, of the type and shape of `array`."""
    tensor = ir.Tensor(array, name=name)
    value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.initializers[name] = value
    return value


@contextlib.contextmanager
def _emptied(model: ir.Model) -> Iterator[dict[str, ir.Value]]:
    """The large weights, with placeholders in the model for as long as it lasts."""
    outside = _large_weights(model)
    tensors = {
        name: tensor_of(v) if isinstance(v.const_value, ir.ExternalTensor) else _external(v, _IN_MEMORY, 0)
        for name, v in outside.items()
    }
    with _swapped(outside, tensors):
        yield outside


@contextlib.contextmanager
def _swapped(values: Mapping[str, ir.Value], tensors: Mapping[str, Any]) -> Iterator[None]:
    """Other tensors in place of the weights, for as long as it lasts."""
    before = {name: value.const_value for name, value in values.items()}
    try:
        for name, value in values.items():
            value.const_value = tensors[name]
        yield
    finally:
        for name, value in values.items():
            value.const_value = before[name]
