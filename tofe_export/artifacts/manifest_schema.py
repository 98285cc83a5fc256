"""What stands in a manifest: every field that anybody reads, with its kind and its bounds, and one check of all.

Fields that are not named here may stand there too. A name or a text may be any that Python can hold, lone surrogates
among them, which older versions of this program wrote for file names that are not UTF-8.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, Field, InstanceOf, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from tofe_export.bounds import LARGEST_SIDE
from tofe_export.errors import InputError

AGAIN = {"onnx": "Export it again with tofe-export onnx.", "engine": "Build it again with tofe-export trt."}
"""What to do about a manifest that cannot be used, by the kind of its artefact."""

_MOST = 10**9
_WORDS = {"Input should": "It should", "an instance of str": "a text", "a valid dictionary": "an object"}
_COSTLIEST = 1e12  # GMACs


def _is(holds: Callable[[Any], bool], wanted: str) -> AfterValidator:
    def check(value: Any) -> Any:
        if not holds(value):
            raise ValueError(wanted)
        return value

    return AfterValidator(check)


def _beside(name: str) -> bool:
    return name not in ("", ".", "..") and not set("/\0") & set(name)


Text = InstanceOf[str]
FileName = Annotated[InstanceOf[str], _is(_beside, "it should be the name of a file, without a folder")]
Count = Annotated[int, Field(ge=0, le=_MOST)]
Positive = Annotated[int, Field(ge=1, le=_MOST)]
Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]
Cost = Annotated[float, Field(gt=0, lt=_COSTLIEST, allow_inf_nan=False)]
Channel = Annotated[float, Field(allow_inf_nan=False)]
Spread = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Blocks = Annotated[
    list[Count],
    Field(min_length=2, max_length=2),
    _is(lambda blocks: blocks[0] < blocks[1], "it should be a first block and a later one"),
]
Histogram = dict[Text, dict[Text, Count]]
Tensors = dict[Text, Annotated[tuple[Text, list[int]], Field(strict=False)]]
Batches = Annotated[
    InstanceOf[str],
    _is(lambda text: text.isascii() and all(part.isdecimal() for part in text.split(":")), "it should be MIN:OPT:MAX"),
]


class Source(TypedDict):
    """The file that something was made of."""

    file: FileName
    sha256: Text


class Config(TypedDict):
    """See `ToFeConfig`, which checks what these mean."""

    backbone: Text
    backbone_args: dict[Text, Any]
    stage_starts: NotRequired[list[Count]]
    selector: Text
    approximator: Text
    dense_output: NotRequired[bool]


class Input(TypedDict):
    """See `Preprocessing`."""

    height: Side
    width: Side
    mean: Annotated[list[Channel], Field(min_length=3, max_length=3)]
    std: Annotated[list[Spread], Field(min_length=3, max_length=3)]
    interpolation: Text
    crop_pct: Annotated[float, Field(gt=0, le=1)]


class ExternalData(TypedDict):
    """Weights beside an ONNX file."""

    file: FileName
    sha256: Text
    bytes: Annotated[int, Field(ge=0)]


class Images(TypedDict):
    """Which images calibrated a model."""

    source: Text
    samples: Positive


class Ranges(TypedDict):
    """How their ranges were found."""

    method: Text


class Quantized(TypedDict):
    """What was quantized, and what is around it."""

    around: Text


class Recipe(TypedDict):
    """See the class of that name in `precision`."""

    name: Text
    data: Images
    ranges: Ranges
    quantize: Quantized


class Calibration(TypedDict):
    """How a model was calibrated."""

    recipe: Recipe


class Layers(TypedDict):
    """Numbers of layers by kind."""

    quantized: NotRequired[dict[Text, Count]]
    high_precision: NotRequired[dict[Text, Count]]


class Manifest(TypedDict):
    """Of any artefact."""

    kind: Literal["onnx", "engine"]
    source: Source
    checkpoint: NotRequired[Source]
    weights_sha256: NotRequired[Text]
    config: Config
    tokens: Positive
    prefix: Count
    keep: list[Positive]
    stages: list[Blocks]
    rearrange: Literal["plugin", "elide"]
    outputs: NotRequired[Annotated[list[Literal["logits", "features"]], Field(min_length=1)]]
    recognised: NotRequired[Text]
    precision: Literal["fp32", "fp16", "bf16", "int8", "fp8"]
    gmacs: Cost
    dense_gmacs: Cost
    preprocessing: Input
    preprocessing_sha256: Text
    data: Text
    classes: NotRequired[list[Text]]
    versions: dict[Text, Any]
    around: NotRequired[Literal["fp16", "fp32"]]
    calibration: NotRequired[Calibration]
    layers: NotRequired[Layers]
    coarse: NotRequired[dict[Text, Count]]
    external_data: NotRequired[ExternalData | None]


class OnnxOptions(TypedDict):
    """What an ONNX file was exported with."""

    keep_source: NotRequired[Text]


class OnnxManifest(Manifest):
    """Of an ONNX file."""

    operators: NotRequired[list[Text]]
    options: OnnxOptions


class Backend(TypedDict):
    """What built an engine, and on which GPU."""

    name: Text
    version: Text
    gpu: Text | None


class Operator(TypedDict):
    """How an engine computes one of the graph operators."""

    operator: Text
    nodes: Count
    by: Text
    why: Text


class Network(TypedDict):
    """What TensorRT's parser made of the file."""

    layers: Histogram
    plugins: list[Text]
    inputs: Tensors
    outputs: Tensors


class EngineOptions(TypedDict):
    """See `BuildOptions`, which checks what these mean."""

    batch: Batches
    version_compatible: bool
    hardware: Text
    compute_capabilities: list[Text]


class EngineManifest(Manifest):
    """Of an engine."""

    backend: Backend
    operators: list[Operator]
    network: Network
    options: EngineOptions


_EXTERNAL = TypeAdapter(ExternalData)
_KINDS: dict[str, type[Any]] = {"onnx": OnnxManifest, "engine": EngineManifest}


def check_manifest(document: Mapping[str, Any], path: Path, suffix: str) -> None:
    """Looks at every field of a manifest.

    Args:
        document: what is in the file.
        path: of the manifest, for messages.
        suffix: of the file that it describes: what ends in `.onnx` or `.engine` must be that.

    Raises:
        InputError: a field is missing, or is not of its kind, or two contradict each other; it is named.
    """
    kind = document.get("kind")
    again = AGAIN["engine" if suffix == ".engine" else "onnx"]
    if not isinstance(kind, str) or kind not in _KINDS or (suffix[1:] in _KINDS and kind != suffix[1:]):
        raise InputError(f"{path} has no usable 'kind'.", again)
    try:
        _adapter(kind).validate_python(dict(document))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place, why = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        for theirs, ours in _WORDS.items():
            why = why.replace(theirs, ours)
        raise InputError(f"{path} has no usable {place!r}: {why[:1].lower()}{why[1:]}.", again) from None
    if len(document["keep"]) != len(document["stages"]):
        raise InputError(f"{path} has no usable 'keep': it is not of one count a stage.", again)
    if any(count > document["tokens"] for count in document["keep"]):
        raise InputError(f"{path} has no usable 'keep': there are only {document['tokens']} tokens.", again)


def external_data(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a manifest, which need not have been checked, says of weights beside the file; None where that is nothing
    usable."""
    try:
        return dict(_EXTERNAL.validate_python(document.get("external_data")))
    except ValidationError:
        return None


@functools.cache
def _adapter(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter(with_config({"strict": True})(_KINDS[kind]))
