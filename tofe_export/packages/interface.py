"""What an artifact takes and returns, as a server must be told."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from tofe_export.artifacts.artifact import Artifact
from tofe_export.documents.manifest import EngineManifest
from tofe_export.engine.options import BuildOptions
from tofe_export.graph.stored import read_onnx


@dataclass(frozen=True)
class Value:
    """An input or output: its type in NumPy's words, and its dimensions behind the batch, -1 where any."""

    name: str
    dtype: str
    dims: tuple[int, ...]


@dataclass(frozen=True)
class Interface:
    """Everything that goes in and comes out.

    Attributes:
        inputs, outputs: in the order of the file.
        batches: least and largest batch; None has no end.
    """

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    batches: tuple[int, int | None]

    @classmethod
    def of(cls, artifact: Artifact) -> Interface:
        """Read from an ONNX file; of an engine its manifest knows it."""
        manifest = artifact.manifest
        if isinstance(manifest, EngineManifest):
            profile, network = BuildOptions.of(manifest.options).batch, manifest.network
            inputs, outputs = (
                tuple(Value(name, _NUMPY[kind], tuple(shape[1:])) for name, (kind, shape) in values.items())
                for values in (network.inputs, network.outputs)
            )
            return cls(inputs, outputs, (profile.minimum, profile.maximum))
        graph = read_onnx(artifact.path).graph
        return cls(tuple(map(_value, graph.inputs)), tuple(map(_value, graph.outputs)), (1, None))


_NUMPY = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "int32": "int32", "int64": "int64"}


def _value(value: ir.Value) -> Value:
    assert value.shape is not None
    assert value.dtype is not None
    dims = tuple(int(side) if isinstance(side, int) else -1 for side in list(value.shape)[1:])
    return Value(str(value.name), value.dtype.numpy().name, dims)
