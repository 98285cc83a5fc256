"""What `inspect` says of a file: a checkpoint, an ONNX file, an engine or a program for phones."""

from __future__ import annotations

from typing import Literal

from pydantic import AliasChoices, Field

from tofe_export.documents.base import Document, Part
from tofe_export.documents.fields import Amount, AnyValue, Count, NaturalNumber, Positive, Share, Text, Whole
from tofe_export.documents.hub import HubRevision
from tofe_export.documents.manifest import (
    Blocks,
    EngineManifest,
    InputImages,
    Layers,
    NetworkConfig,
    OnnxManifest,
    ProgramManifest,
    Tensors,
)


class Inspection(Document):
    """Of any file; `kind` says which of them it is."""

    schema_: Literal["tofe-export/inspect/1"] = Field(default="tofe-export/inspect/1", alias="schema")
    file: Text
    size_bytes: NaturalNumber
    sha256: Text
    kind: Literal["checkpoint", "onnx", "engine", "program"]


class CheckpointInspection(Inspection):
    """A network and its weights.

    Attributes:
        recognised: what the file was taken for.
        notes: what the user should know about it, a sentence each.
        assumed: what neither the file nor the user said of it, a sentence each.
        hub: of a file in the Hugging Face hub's cache, its repository and revision; None for others.
        tokens, prefix: patch tokens N and prefix tokens P.
        stages: first block and end of each stage.
        keep_ratios: learned mean keep ratio of each stage; empty when unknown.
        dense_gmacs: of one image.
        data: what it was trained on.
        keep, gmacs: keep counts and the cost of an image with them; None where the checkpoint does not say.
    """

    kind: Literal["checkpoint"] = "checkpoint"
    recognised: Text
    notes: tuple[Text, ...]
    assumed: tuple[Text, ...] = ()
    hub: HubRevision | None = None
    config: NetworkConfig
    parameters: NaturalNumber
    tokens: Positive
    prefix: Count
    stages: tuple[Blocks, ...]
    keep_ratios: tuple[Share, ...]
    dense_gmacs: Amount
    preprocessing: InputImages
    data: Text
    metrics: dict[Text, AnyValue]
    keep: tuple[Count, ...] | None = None
    gmacs: Amount | None = None


class GraphOperator(Part):
    """A node of one of the two graph operators, with its attributes; None where it does not have one."""

    name: Text
    operator: Text
    keep: Whole | None = None
    prefix: Whole | None = None


class OnnxInspection(Inspection):
    """An ONNX graph, whoever exported it.

    Attributes:
        inputs, outputs: name -> shape.
        nodes: operator -> how many, the most frequent first.
        manifest: None where none is beside the file.
    """

    kind: Literal["onnx"] = "onnx"
    inputs: dict[Text, Text]
    outputs: dict[Text, Text]
    nodes: dict[Text, Count]
    operators: tuple[GraphOperator, ...]
    manifest: OnnxManifest | None


class EngineInspection(Inspection):
    """An engine.

    Attributes:
        layers_from: "engine" where it could be loaded here, else "manifest", and `why` says why not.
        layers: by type and precision.
        precisions: precision -> how many layers.
        plugins: names of the plugin layers.
        batch: MIN:OPT:MAX.
    """

    kind: Literal["engine"] = "engine"
    layers_from: Literal["engine", "manifest"] = Field(
        validation_alias=AliasChoices("layers_from", "from"), serialization_alias="from"
    )
    why: Text | None = None
    layers: Layers
    precisions: dict[Text, Count]
    plugins: tuple[Text, ...]
    inputs: Tensors
    outputs: Tensors
    batch: Text
    manifest: EngineManifest


class ProgramInspection(Inspection):
    """A program for phones and small boards."""

    kind: Literal["program"] = "program"
    manifest: ProgramManifest


AnyInspection = CheckpointInspection | OnnxInspection | EngineInspection | ProgramInspection
