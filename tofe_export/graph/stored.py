"""A graph handed to a file, a runtime or another pass, below protobuf's limit in one piece and above it with its
weights outside.

A copy shares the weights, which no pass changes in place. In a file above the limit the weights lie in one file of
external data beside it (onnx/docs/ExternalData.md), each at a multiple of the page size, so that a runtime can map it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import onnx
import onnx_ir as ir

from tofe_export.runners.base import LargeModel

LIMIT_BYTES = 2_147_483_647
"""The most that one protobuf message can hold."""

_PAGE = 4096
_LEAST = 1024  # bytes; what is smaller stays in the graph
_ROOM = 1 << 26  # bytes; more than any graph without its weights takes
_IN_MEMORY = "weights in memory"  # stands for the file where there is none


def serialize(model: ir.Model) -> bytes | LargeModel:
    """The model for a runtime, which leaves it as it is."""
    if fits(model):
        return _whole_bytes(model)
    outside = _large_weights(model)
    with _swapped(outside, {name: _placeholder(value) for name, value in outside.items()}):
        graph = ir.to_proto(model).SerializeToString()
    return LargeModel(graph, {name: _tensor(value) for name, value in outside.items()})


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
    outside = _large_weights(model)
    with _swapped(outside, {name: _placeholder(value) for name, value in outside.items()}):
        copied = ir.from_proto(ir.to_proto(model))
    for name, value in outside.items():
        copied.graph.initializers[name].const_value = value.const_value
    return copied


def whole_proto(model: ir.Model) -> onnx.ModelProto:
    """The model with every weight in it; above the limit it exists in memory only."""
    external = {name: v for name, v in model.graph.initializers.items() if isinstance(v.const_value, ir.ExternalTensor)}
    loaded = {name: ir.Tensor(_tensor(v).numpy(), dtype=v.dtype, name=name) for name, v in external.items()}
    with _swapped(external, loaded):
        return ir.to_proto(model)


def fits(model: ir.Model) -> bool:
    """Whether one protobuf message can hold the model."""
    outside = _large_weights(model)
    weights = sum(_tensor(value).nbytes for value in outside.values())
    if not weights <= LIMIT_BYTES < weights + _ROOM:  # only near the limit does the graph's own size matter
        return bool(weights <= LIMIT_BYTES)
    with _swapped(outside, {name: _placeholder(value) for name, value in outside.items()}):
        return bool(weights + ir.to_proto(model).ByteSize() <= LIMIT_BYTES)  # placeholders take more than headers do


def write(model: ir.Model, path: Path, write_data: Callable[[Callable[[BinaryIO], None]], str]) -> None:
    """Writes the model to `path`, the same bytes each time; above the limit with a file of external data.

    Args:
        model: left as it is.
        path: the ONNX file.
        write_data: writes the file of external data with the function it is given, and returns its name.
    """
    if fits(model):
        path.write_bytes(_whole_bytes(model))
        return
    outside = _large_weights(model)
    offsets, end = {}, 0
    for name, value in outside.items():
        offsets[name] = -(-end // _PAGE) * _PAGE
        end = offsets[name] + _tensor(value).nbytes

    def write_weights(file: BinaryIO) -> None:
        for name, value in outside.items():
            file.write(bytes(offsets[name] - file.tell()))
            file.write(_tensor(value).tobytes())

    location = write_data(write_weights)
    placed = {name: _external(value, location, offsets[name]) for name, value in outside.items()}
    with _swapped(outside, placed):
        path.write_bytes(ir.to_proto(model).SerializeToString(deterministic=True))


def _whole_bytes(model: ir.Model) -> bytes:
    return bytes(whole_proto(model).SerializeToString(deterministic=True))


def _large_weights(model: ir.Model) -> dict[str, ir.Value]:
    known = model.graph.initializers.items()
    return {n: v for n, v in known if v.const_value is not None and v.const_value.nbytes >= _LEAST}


def _tensor(value: ir.Value) -> Any:
    assert value.const_value is not None
    return value.const_value


def _placeholder(value: ir.Value) -> ir.ExternalTensor:
    tensor = value.const_value
    return tensor if isinstance(tensor, ir.ExternalTensor) else _external(value, _IN_MEMORY, 0)


def _external(value: ir.Value, location: str, offset: int) -> ir.ExternalTensor:
    tensor = _tensor(value)
    return ir.ExternalTensor(
        location, offset, tensor.nbytes, tensor.dtype, shape=tensor.shape, name=str(value.name), base_dir=""
    )


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
