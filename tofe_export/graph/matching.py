"""What passes ask a graph to find a pattern: who makes a value, who alone reads it, and what constants hold."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray


def only_producer(value: ir.Value | None, operator: str) -> ir.Node | None:
    """The node that computes `value`, if it is an `operator` and nobody but one reader sees the value."""
    if value is None or len(value.uses()) != 1 or value.is_graph_output():
        return None
    producer = value.producer()
    return producer if producer is not None and producer.op_type == operator else None


def only_reader(value: ir.Value, operator: str) -> ir.Node | None:
    """The node that reads `value`, if it is an `operator` and the only reader."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    reader = next(iter(uses)).node
    return reader if reader.op_type == operator else None


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """What an initializer holds; None for anything else."""
    if value is None or not value.is_initializer() or value.const_value is None:
        return None
    return value.const_value.numpy()
