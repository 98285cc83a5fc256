"""The manifest beside every artifact: where it came from, what it holds and how it must be used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from tofe_export.documents.base import Document, Part, first_problem
from tofe_export.documents.fields import (
    Amount,
    AnyValue,
    Count,
    FileName,
    Flag,
    NaturalNumber,
    Number,
    Positive,
    Precision,
    Side,
    Target,
    Text,
    Whole,
    must,
)
from tofe_export.documents.hub import HubRevision
from tofe_export.documents.onnx_options import OnnxOptions
from tofe_export.documents.recipe import CalibrationRecipe
from tofe_export.documents.verification import FeaturesDrift, LogitsDrift
from tofe_export.errors import InputError

Blocks = Annotated[
    tuple[Count, Count],
    must(lambda blocks: blocks[0] < blocks[1], "it should be a first block and a later one"),
]
Batches = Annotated[
    Text,
    must(lambda text: text.isascii() and all(part.isdecimal() for part in text.split(":")), "it should be MIN:OPT:MAX"),
]
Divisor = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
Layers = dict[Text, dict[Text, Count]]
"""Type of layer -> precision -> how many."""
Tensors = dict[Text, tuple[Text, tuple[Whole, ...]]]
"""Name -> precision and shape, -1 for the batch."""
Output = Literal["logits", "features"]
CropMode = Literal["center", "squash", "border"]
Copy = Literal["model", "ema"]
"""Of two copies of the weights in a checkpoint: what was trained, or its average."""


class FileIdentity(Part):
    """The file that something was made of."""

    file: FileName
    sha256: Text


class NetworkConfig(Part):
    """What a network is made of; `model.config.ToFeConfig` checks what the values mean."""

    backbone: Text
    backbone_args: dict[Text, AnyValue]
    stage_starts: tuple[Count, ...] = ()
    selector: Text
    approximator: Text
    dense_output: Flag = False


class InputImages(Part):
    """How images become input; see `data.preprocessing.Preprocessing`. Older documents crop the center."""

    height: Side
    width: Side
    mean: tuple[Number, Number, Number]
    std: tuple[Divisor, Divisor, Divisor]
    interpolation: Text
    crop_pct: Annotated[float, Field(strict=True, gt=0, le=1)]
    crop_mode: CropMode = "center"


class ExternalData(Part):
    """The file of weights beside an ONNX file above 2 GB."""

    file: FileName
    sha256: Text
    bytes: NaturalNumber


class Calibration(Part):
    """How a model was calibrated: by which recipe, and the hashes of model, preprocessing and images."""

    recipe: CalibrationRecipe
    format: Text = ""
    model: Text = ""
    preprocessing: Text = ""
    data: Text = ""
    bins: Count = 0


class LayerCounts(Part):
    """How many layers of each kind were quantized, and how many were left in high precision."""

    quantized: dict[Text, Count] = {}
    high_precision: dict[Text, Count] = {}


class Manifest(Document):
    """Of any artifact.

    Attributes:
        sha256: of the artifact.
        source: the file it was made of.
        checkpoint: the checkpoint behind that, where `source` is not it.
        weights_sha256: see `Checkpoint.weights_sha256`; None where an older version did not say.
        tokens, prefix: patch tokens N and prefix tokens P.
        stages: first block and end of each stage.
        recognised: what the checkpoint was taken for.
        assumed: what neither the checkpoint nor the user said of it, a sentence each.
        weights: of two copies of the weights in the checkpoint, the one that was taken; None where there is one.
        hub: where the checkpoint was in the Hugging Face hub's cache, its repository and revision; None elsewhere.
        gmacs, dense_gmacs: of one image.
        data: what the checkpoint was trained on.
        classes: names of the classes in the order of the logits; empty where unknown.
        around: of a quantized model, the precision of everything else.
        coarse: layer -> ranges that are wider than its values; see `precision.quantize.QuantizedGraph`.
        external_data: of an ONNX file above 2 GB.
    """

    schema_: Literal["tofe-export/manifest/1"] = Field(default="tofe-export/manifest/1", alias="schema")
    sha256: Text = ""
    kind: Literal["onnx", "engine", "pte", "tflite"]
    source: FileIdentity
    checkpoint: FileIdentity | None = None
    weights_sha256: Text | None = None
    config: NetworkConfig
    tokens: Positive
    prefix: Count
    keep: tuple[Positive, ...]
    stages: tuple[Blocks, ...]
    rearrange: Literal["plugin", "elide"]
    outputs: Annotated[tuple[Output, ...], Field(min_length=1)] = ("logits",)
    recognised: Text = "ToFe"
    assumed: tuple[Text, ...] = ()
    weights: Copy | None = None
    hub: HubRevision | None = None
    precision: Precision
    gmacs: Amount
    dense_gmacs: Amount
    preprocessing: InputImages
    preprocessing_sha256: Text
    data: Text
    classes: tuple[Text, ...] = ()
    versions: dict[Text, Text]
    around: Literal["fp16", "bf16", "fp32"] | None = None
    calibration: Calibration | None = None
    layers: LayerCounts | None = None
    coarse: dict[Text, Count] = {}
    external_data: ExternalData | None = None

    @property
    def origin(self) -> FileIdentity:
        """The checkpoint it came from, directly or not."""
        return self.checkpoint or self.source

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(D, H, W) of the input."""
        return 3, self.preprocessing.height, self.preprocessing.width

    def shared(self) -> dict[str, Any]:
        """What stays true of every artifact that is made from this one, as arguments of another manifest."""
        own = {"schema_", "sha256", "kind", "source", "external_data", "layers"}
        return {name: getattr(self, name) for name in Manifest.model_fields if name not in own}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.keep) != len(self.stages):
            raise ValueError("keep: it should have one count per stage")
        if any(count > self.tokens for count in self.keep):
            raise ValueError(f"keep: there are only {self.tokens} tokens")
        return self


class OnnxManifest(Manifest):
    """Of an ONNX file."""

    kind: Literal["onnx"] = "onnx"
    operators: tuple[Text, ...] = ()
    options: OnnxOptions

    @property
    def runtime(self) -> Literal["onnxruntime", "openvino"]:
        """What runs the file here."""
        return "openvino" if self.options.target == "openvino" else "onnxruntime"

    @property
    def has_ends(self) -> bool:
        """Whether the file prepares images or names classes itself (`graph/passes/ends.py`)."""
        return self.options.input == "image" or self.options.top > 0


class EngineBackend(Part):
    """What built an engine, and on which GPU."""

    name: Literal["tensorrt", "rtx"]
    version: Text
    gpu: Text | None


class OperatorUse(Part):
    """How an engine computes one of the two graph operators: `by` is "plugin" or "function body"; `why` in words."""

    operator: Text
    nodes: Count
    by: Text
    why: Text


class Network(Part):
    """What TensorRT's parser made of the ONNX graph.

    Attributes:
        layers: by type and precision, {"SOFTMAX": {"fp32": 12}}. The precision is that of the first output, or of the
            quantized values that a matrix product or convolution reads.
        plugins: names of the plugin layers.
        inputs, outputs: names to precision and shape.
    """

    layers: Layers
    plugins: tuple[Text, ...]
    inputs: Tensors
    outputs: Tensors


class EngineOptions(Part):
    """What an engine was built for; `engine.options.BuildOptions` checks what the values mean."""

    precision: Precision = "fp32"
    backend: Text = "auto"
    plugin: Text = "auto"
    batch: Batches
    workspace_mib: Positive | None = None
    timing_cache: Text | None = None
    version_compatible: Flag
    hardware: Text
    compute_capabilities: tuple[Text, ...]
    taps: Flag = False


class GpuCheck(Part):
    """How the engine agreed with its ONNX file after the build; `logits` are features where those are its only output.

    `why` says why it was not run.
    """

    run: Flag
    why: Text = ""
    samples: Count = 0
    logits: LogitsDrift | FeaturesDrift | None = None
    tolerances: dict[Text, Number] = {}
    unjudged: tuple[Text, ...] = ()
    inspector_precisions: tuple[Text, ...] = ()


class EngineManifest(Manifest):
    """Of an engine."""

    kind: Literal["engine"] = "engine"
    backend: EngineBackend
    operators: tuple[OperatorUse, ...]
    network: Network
    options: EngineOptions
    checked: GpuCheck | None = None


class ProgramManifest(Manifest):
    """Of a program for phones and small boards: an ExecuTorch program (pte) or a LiteRT model (tflite).

    Attributes:
        returns: names of what it returns, in its order.
        taps: whether scores, perm and tokens of its stages are among them.
    """

    kind: Literal["pte", "tflite"]
    returns: Annotated[tuple[Text, ...], Field(min_length=1)]
    taps: Flag = False

    @property
    def runtime(self) -> Literal["executorch", "litert"]:
        """What runs it."""
        return "executorch" if self.kind == "pte" else "litert"


AnyManifest = OnnxManifest | EngineManifest | ProgramManifest


def target_name(target: Target) -> str:
    """What a file was optimized for, in a sentence."""
    return {"any": "any reader", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}[target]


def again_of(suffix: str) -> str:
    """What to do about a manifest that cannot be used, by the ending of its artifact."""
    again = {".engine": "Build it again from its ONNX file.", ".pte": _PACKAGE, ".tflite": _PACKAGE}
    return again.get(suffix, "Export it again from its checkpoint.")


_PACKAGE = "Package it again from its ONNX file."
_KINDS: dict[str, type[AnyManifest]] = {
    "onnx": OnnxManifest,
    "engine": EngineManifest,
    "pte": ProgramManifest,
    "tflite": ProgramManifest,
}


def parse_manifest(content: Mapping[str, Any], path: Path, suffix: str) -> AnyManifest:
    """Checks every field of the manifest in `path`; an artifact whose suffix names a kind must be of that kind.

    Raises:
        InputError: a field is missing, or is not of its kind, or two contradict each other; it is named.
    """
    kind = content.get("kind")
    again, artifact = again_of(suffix), path.with_suffix("")
    if not isinstance(kind, str) or kind not in _KINDS or (suffix[1:] in _KINDS and kind != suffix[1:]):
        raise InputError(f"{path} has no usable 'kind'.", again, code="manifest-field", field="kind", path=artifact)
    try:
        return _KINDS[kind].model_validate(dict(content))
    except ValidationError as error:
        place, reason = first_problem(error)
        if not place:  # two fields that contradict each other
            place, _, reason = reason.partition(": ")
        message = f"{path} has no usable {place!r}: {reason}."
        raise InputError(message, again, code="manifest-field", field=place, path=artifact) from None


def external_data(content: Mapping[str, Any]) -> ExternalData | None:
    """What a manifest that may not have been checked says of weights beside the file; None where it is not usable."""
    try:
        return ExternalData.model_validate(content.get("external_data"))
    except ValidationError:
        return None
