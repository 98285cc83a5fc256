"""A manifest is checked once, whole: whatever stands in it, its readers find what they expect, or it is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.files.test_writing import MANIFEST
from tests.helpers import refusal
from tofe_export.artifacts.manifests import manifest_path, read_manifest
from tofe_export.artifacts.sets import atomic_artifact
from tofe_export.cli.inspect import facts_of
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.documents.base import parse
from tofe_export.documents.inspection import EngineInspection, OnnxInspection
from tofe_export.documents.manifest import EngineManifest, EngineOptions, OnnxManifest, parse_manifest
from tofe_export.documents.recipe import CalibrationData, CalibrationRecipe
from tofe_export.engine.options import BatchProfile, BuildOptions
from tofe_export.errors import InputError
from tofe_export.model.config import ToFeConfig
from tofe_export.precision.recipe import parse_recipe

RECIPE = CalibrationRecipe(name="few", data=CalibrationData(source="digits")).to_dict()
QUANTIZED: dict[str, Any] = {
    **MANIFEST,
    "checkpoint": {"file": "ckpt.pth", "sha256": "00"},
    "weights_sha256": "00",
    "outputs": ["logits"],
    "recognised": "ToFe",
    "classes": ["cat", "dog"],
    "precision": "int8",
    "around": "fp32",
    "calibration": {"recipe": RECIPE, "bins": 2048},
    "layers": {"quantized": {"qkv": 5}, "high_precision": {"head": 1}},
    "coarse": {"blocks.0": 1},
    "operators": ["tofe::TokenPartition"],
}
ENGINE: dict[str, Any] = {
    **QUANTIZED,
    "kind": "engine",
    "around": "fp16",
    "backend": {"name": "rtx", "version": "1.7.1.116", "gpu": None},
    "operators": [{"operator": "tofe::TokenPartition", "nodes": 3, "by": "function body", "why": "no plugins"}],
    "network": {
        "layers": {"SOFTMAX": {"fp32": 4}},
        "plugins": [],
        "inputs": {"images": ["fp32", [-1, 3, 32, 32]]},
        "outputs": {"logits": ["fp32", [-1, 5]]},
    },
    "options": BuildOptions("int8").document().to_dict(),
}
FORMS = {"plain": MANIFEST, "quantized": QUANTIZED, "engine": ENGINE}
VALUES = [
    *(None, True, False, 0, -1, 1, 2, 2.5, 10**9, 10**20, 10**400, -(10**400), 1e308, -1e308, 5e-324),
    *(float("nan"), float("inf"), "", "x", ".", "a/b", "a\x00", "\udcff", "1:2", "9" * 5000, "fp32", "logits"),
    *([], [1], [[1]], [None], [1, 2], [1, 2, 3], ["x"], {}, {"": None}, {"x": [1]}, {"\udcff": 1}, [{}]),
]
_PLACES = st.deferred(lambda: st.sampled_from([(form, place) for form in FORMS for place in places(FORMS[form])]))


def places(value: Any) -> Iterator[tuple[str | int, ...]]:
    """Where something stands in a document, but for the document itself."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield (key,)
        yield from ((key, *below) for below in places(part))


def changed(form: str, place: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """A form with another value somewhere; `...` removes what stands there."""
    document = copy.deepcopy(FORMS[form])
    *outer, last = place
    level: Any = document
    for key in outer:
        level = level[key]
    if value is ...:
        del level[last]
    else:
        level[last] = value
    return document


def refused(read: Callable[..., object], *given: Any) -> InputError | None:
    """How `read` refuses; None where it works. Any other exception is a fault."""
    try:
        read(*given)
    except InputError as error:
        return error
    return None


def use(document: dict[str, Any], form: str) -> None:
    """Everything that the package reads of a manifest, as it reads it."""
    manifest = parse_manifest(document, Path("model.json"), ".engine" if form == "engine" else ".onnx")
    ToFeConfig.from_dict(manifest.config.to_dict())
    Preprocessing.from_dict(manifest.preprocessing.to_dict())
    assert all(1 <= count <= manifest.tokens for count in manifest.keep)
    assert all(start < stop for start, stop in manifest.stages)
    assert manifest.gmacs / manifest.dense_gmacs > 0
    Path("folder").joinpath("x").with_name(manifest.origin.file)
    if manifest.calibration is not None:
        assert manifest.calibration.recipe.quantize.kinds
    assert facts_of(inspected(manifest))
    again = parse_manifest(json.loads(manifest.to_json()), Path("model.json"), "")
    assert again == manifest


def inspected(manifest: OnnxManifest | EngineManifest) -> OnnxInspection | EngineInspection:
    """What `inspect` shows of it."""
    file: dict[str, Any] = {"file": "m", "size_bytes": 1, "sha256": manifest.sha256, "manifest": manifest}
    if isinstance(manifest, OnnxManifest):
        return OnnxInspection(**file, inputs={}, outputs={}, nodes={}, operators=())
    BuildOptions.of(manifest.options)
    network = {name: getattr(manifest.network, name) for name in ("layers", "plugins", "inputs", "outputs")}
    return EngineInspection(
        **file, **network, layers_from="manifest", why="", precisions={}, batch=manifest.options.batch
    )


@pytest.mark.parametrize("form", FORMS)
def test_what_this_program_writes_is_used(form: str) -> None:
    use(FORMS[form], form)
    extended = {**FORMS[form], "of a later version": [[]], "\udcff": {"a": 1}}
    use(json.loads(json.dumps(extended)), form)


@given(_PLACES, st.sampled_from([*VALUES, ...]))
def test_a_manifest_with_one_thing_changed_is_used_or_refused_by_name(
    at: tuple[str, tuple[str | int, ...]], value: Any
) -> None:
    document = changed(*at, value)
    error = refused(use, document, at[0])
    assert error is None or (error.next_step and error.code and len(error.message) < 500), error


@pytest.mark.parametrize(
    ("form", "place", "value", "field", "reason"),
    [
        ("plain", "keep", "many", "keep", "it should be a list"),
        ("plain", "keep.0", True, "keep.0", "it should be a whole number"),
        ("plain", "keep.0", 5, "keep", "there are only 4 tokens"),
        ("plain", "keep", [2, 1], "keep", "it should have one count per stage"),
        ("plain", "stages.0", [3], "stages.0.1", "it is missing"),
        ("plain", "stages.0", [4, 3], "stages.0", "it should be a first block and a later one"),
        ("plain", "config.backbone", None, "config.backbone", "it should be a text"),
        ("plain", "config.backbone_args", [1], "config.backbone_args", "it should be an object"),
        ("plain", "config.backbone_args.depth", float("inf"), "config.backbone_args.depth", "finite numbers only"),
        ("plain", "source", {}, "source.file", "it is missing"),
        ("plain", "source.file", "../ckpt.pth", "source.file", "it should be the name of a file"),
        ("plain", "precision", "int3", "precision", "it should be 'fp32', 'fp16'"),
        ("plain", "precision", "\udcff", "precision", "it should be a text"),
        ("plain", "gmacs", float("nan"), "gmacs", "it should be a finite number"),
        ("plain", "dense_gmacs", 0, "dense_gmacs", "it should be greater than 0"),
        ("plain", "gmacs", 10**400, "gmacs", "it should be a number"),
        ("plain", "preprocessing.std.1", 0, "preprocessing.std.1", "it should be greater than 0"),
        ("plain", "preprocessing.height", 10**9, "preprocessing.height", "less than or equal to 8192"),
        ("plain", "kind", "engine", "kind", ""),
        ("plain", "versions", ..., "versions", "it is missing"),
        ("quantized", "calibration", "yes", "calibration", "it should be an object"),
        ("quantized", "outputs", ["dreams"], "outputs.0", "it should be 'logits' or 'features'"),
        ("quantized", "classes", [1], "classes.0", "it should be a text"),
        ("engine", "network.layers", [1], "network.layers", "it should be an object"),
        ("engine", "backend", None, "backend", "it should be an object"),
        ("engine", "options", ..., "options", "it is missing"),
        ("engine", "options.batch", "many", "options.batch", "it should be MIN:OPT:MAX"),
        ("engine", "kind", "onnx", "kind", ""),
    ],
)
def test_the_field_is_named(form: str, place: str, value: Any, field: str, reason: str) -> None:
    document = changed(form, tuple(int(key) if key.isdecimal() else key for key in place.split(".")), value)
    error = refusal(parse_manifest, document, Path("m.onnx.json"), ".engine" if form == "engine" else ".onnx")
    assert (error.code, error.details["field"], error.details["path"]) == ("manifest-field", field, Path("m.onnx"))
    assert f"m.onnx.json has no usable {field!r}" in error.message
    assert reason in error.message
    assert error.next_step.startswith("Build it again" if form == "engine" else "Export it again")


@pytest.mark.parametrize(
    ("content", "code", "reason"),
    [
        ("{", "not-json", ""),
        ('{"keep": ' + "9" * 10_000 + "}", "not-json", "it holds a number of thousands of digits"),
        ('{"keep": ' + "[" * 100_000, "not-json", "its brackets nest too deeply"),
        ("[]", "json-kind", "a JSON list, not an object"),
        ('"\xff"', "not-json", ""),
    ],
    ids=["cut", "digits", "brackets", "list", "Latin-1"],
)
def test_a_manifest_that_is_not_a_document(tmp_path: Path, content: str, code: str, reason: str) -> None:
    model = tmp_path / "model.onnx"
    with atomic_artifact(model) as draft:
        draft.path.write_bytes(b"model")
        draft.manifest = OnnxManifest.model_validate(MANIFEST)
    assert read_manifest(model).keep == (2,)
    manifest_path(model).write_bytes(content.encode("latin-1"))
    error = refusal(read_manifest, model)
    assert error.code == code
    assert reason in error.message
    assert error.next_step == "Export it again from its checkpoint."


_JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from([400, 5000]).map(lambda digits: 10**digits),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=4)),
    max_leaves=6,
)


def _options(content: Any) -> BuildOptions:
    return BuildOptions.of(parse(EngineOptions, content, "options", "Build it again."))


def _recipe(content: Any) -> CalibrationRecipe:
    return parse_recipe(content, Path("few.toml"))


_READERS: dict[str, tuple[Callable[[Any], object], dict[str, Any]]] = {
    "configuration": (ToFeConfig.from_dict, MANIFEST["config"]),
    "preprocessing": (Preprocessing.from_dict, MANIFEST["preprocessing"]),
    "build options": (_options, BuildOptions().document().to_dict()),
    "recipe": (_recipe, {name: table for name, table in RECIPE.items() if name != "name"}),
}
_OF_CHECKPOINTS = ("configuration", "preprocessing")


@pytest.mark.parametrize("name", _READERS)
@given(st.data())
def test_content_of_any_kind_is_read_or_refused(name: str, data: st.DataObject) -> None:
    read, known = _READERS[name]
    keys = st.one_of(st.sampled_from(sorted(known)), st.text(max_size=4))
    content = {**known, **data.draw(st.dictionaries(keys, _JSON, min_size=1, max_size=2))}
    if name in _OF_CHECKPOINTS:  # which may hold anything in its place
        content = data.draw(st.one_of(st.just(content), _JSON))
    error = refused(read, content)
    assert error is None or error.next_step, error


@given(st.text(alphabet="0123456789: -x²٣", max_size=14))
def test_batch_sizes_of_any_text(text: str) -> None:
    if refused(BatchProfile.of, text) is None:
        profile = BatchProfile.of(text)
        assert 1 <= profile.minimum <= profile.optimum <= profile.maximum
