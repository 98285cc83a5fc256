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

from tests.artifacts.test_files import MANIFEST
from tofe_export.artifacts.manifest import manifest_path, read_manifest
from tofe_export.artifacts.manifest_schema import check_manifest
from tofe_export.artifacts.sets import atomic_artefact
from tofe_export.cli.inspect import _facts
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.engine.options import BatchProfile, BuildOptions
from tofe_export.errors import InputError
from tofe_export.model.config import ToFeConfig
from tofe_export.precision.recipe import DataPart, Recipe

QUANTIZED: dict[str, Any] = {
    **MANIFEST,
    "checkpoint": {"file": "ckpt.pth", "sha256": "00"},
    "weights_sha256": "00",
    "outputs": ["logits"],
    "recognised": "ToFe",
    "classes": ["cat", "dog"],
    "precision": "int8",
    "around": "fp32",
    "calibration": {"recipe": Recipe("few", DataPart("digits")).to_dict(), "bins": 2048},
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
    "options": BuildOptions("int8").to_dict(),
}
FORMS = {"plain": MANIFEST, "quantized": QUANTIZED, "engine": ENGINE}
VALUES = [
    *(None, True, False, 0, -1, 1, 2, 2.5, 10**9, 10**20, 10**400, -(10**400), 1e308, -1e308, 5e-324),
    *(float("nan"), float("inf"), "", "x", ".", "a/b", "a\x00", "\udcff", "1:2", "9" * 5000, "fp32", "logits"),
    *([], [1], [[1]], [None], [1, 2], [1, 2, 3], ["x"], {}, {"": None}, {"x": [1]}, {"\udcff": 1}, [{}]),
]
_PLACES = st.deferred(lambda: st.sampled_from([(form, place) for form in FORMS for place in places(FORMS[form])]))


def places(found: Any) -> Iterator[tuple[str | int, ...]]:
    """Where something stands in a document, but for the document itself."""
    inside = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    for key, value in inside:
        yield (key,)
        yield from ((key, *below) for below in places(value))


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
    """Everything that the verbs read of a manifest, as they read it."""
    check_manifest(document, Path("model.json"), ".engine" if form == "engine" else ".onnx")
    ToFeConfig.from_dict(document["config"])
    Preprocessing.from_dict(document["preprocessing"])
    assert all(1 <= count <= document["tokens"] for count in document["keep"])
    assert all(start < stop for start, stop in document["stages"])
    assert document["gmacs"] / document["dense_gmacs"] > 0
    Path("folder").joinpath("x").with_name(document["source"]["file"])
    shown: dict[str, Any] = {"kind": "onnx", "nodes": {}, "outputs": {}, "operators": [], "manifest": document}
    if form == "engine":
        BuildOptions.from_dict(document["options"])
        network = document["network"]
        shown |= {"kind": "engine", "from": "manifest", "why": "", "layers": network["layers"]}
        shown |= {name: network[name] for name in ("plugins", "inputs", "outputs")}
        shown |= {"batch": document["options"]["batch"]}
    if "calibration" in document:
        Recipe.from_dict(document["calibration"]["recipe"])
    if "classes" in document:
        assert all(isinstance(name, str) for name in document["classes"])
    assert _facts(shown)


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
    refusal = refused(use, document, at[0])
    assert refusal is None or (refusal.next_step and len(refusal.message) < 500), refusal


@pytest.mark.parametrize(
    ("form", "place", "value", "complaint"),
    [
        ("plain", "keep", "many", r"'keep': it should be a valid list"),
        ("plain", "keep.0", True, r"'keep\.0': it should be a valid integer"),
        ("plain", "keep.0", 5, r"'keep': there are only 4 tokens"),
        ("plain", "keep", [2, 1], r"'keep': it is not of one count a stage"),
        ("plain", "stages.0", [3], r"'stages\.0'"),
        ("plain", "stages.0", [4, 3], r"'stages\.0': it should be a first block and a later one"),
        ("plain", "config.backbone", None, r"'config\.backbone': it should be a text"),
        ("plain", "config.backbone_args", [1], r"'config\.backbone_args': it should be an object"),
        ("plain", "source", {}, r"'source\.file'"),
        ("plain", "source.file", "../ckpt.pth", r"'source\.file': it should be the name of a file"),
        ("plain", "precision", "int3", r"'precision'"),
        ("plain", "gmacs", float("nan"), r"'gmacs': it should be a finite number"),
        ("plain", "dense_gmacs", 0, r"'dense_gmacs': it should be greater than 0"),
        ("plain", "gmacs", 10**400, r"'gmacs'"),
        ("plain", "preprocessing.std.1", 0, r"'preprocessing\.std\.1': it should be greater than 0"),
        ("plain", "preprocessing.height", 10**9, r"'preprocessing\.height'"),
        ("plain", "kind", "engine", r"'kind'"),
        ("plain", "versions", ..., r"'versions': field required"),
        ("quantized", "calibration", "yes", r"'calibration': it should be an object"),
        ("quantized", "outputs", ["dreams"], r"'outputs\.0'"),
        ("quantized", "classes", [1], r"'classes\.0': it should be a text"),
        ("engine", "network.layers", [1], r"'network\.layers': it should be an object"),
        ("engine", "backend", None, r"'backend': it should be an object"),
        ("engine", "options", ..., r"'options': field required"),
        ("engine", "options.batch", "many", r"'options\.batch': it should be MIN:OPT:MAX"),
        ("engine", "kind", "onnx", r"'kind'"),
    ],
)
def test_the_field_is_named(form: str, place: str, value: Any, complaint: str) -> None:
    document = changed(form, tuple(int(key) if key.isdecimal() else key for key in place.split(".")), value)
    with pytest.raises(InputError, match=rf"model\.json has no usable {complaint}") as caught:
        check_manifest(document, Path("model.json"), ".engine" if form == "engine" else ".onnx")
    assert ("tofe-export trt" if form == "engine" else "tofe-export onnx") in caught.value.next_step


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "is not a JSON file"),
        ('{"keep": ' + "9" * 10_000 + "}", "is not a JSON file: it holds a number of thousands of digits"),
        ('{"keep": ' + "[" * 100_000, "is not a JSON file: its brackets nest too deeply"),
        ("[]", "holds a JSON list, not an object"),
        ('"\xff"', "is not a JSON file"),
    ],
    ids=["cut", "digits", "brackets", "list", "Latin-1"],
)
def test_a_manifest_that_is_no_document(tmp_path: Path, content: str, complaint: str) -> None:
    model = tmp_path / "model.onnx"
    with atomic_artefact(model) as draft:
        draft.path.write_bytes(b"model")
        draft.manifest = MANIFEST
    assert read_manifest(model)["keep"] == [2]
    manifest_path(model).write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=complaint) as caught:
        read_manifest(model)
    assert caught.value.next_step == "Export it again with tofe-export onnx."


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
_READERS: dict[str, tuple[Callable[[Any], object], dict[str, Any]]] = {
    "configuration": (ToFeConfig.from_dict, MANIFEST["config"]),
    "preprocessing": (Preprocessing.from_dict, MANIFEST["preprocessing"]),
    "build options": (BuildOptions.from_dict, BuildOptions().to_dict()),
    "recipe": (Recipe.from_dict, Recipe("few", DataPart("digits")).to_dict()),
}


@pytest.mark.parametrize("name", _READERS)
@given(st.data())
def test_content_of_any_kind_is_read_or_refused(name: str, data: st.DataObject) -> None:
    read, known = _READERS[name]
    keys = st.one_of(st.sampled_from(sorted(known)), st.text(max_size=4), st.integers())
    change = data.draw(st.one_of(st.dictionaries(keys, _JSON, min_size=1, max_size=2), _JSON))
    refusal = refused(read, {**known, **change} if isinstance(change, dict) else change)
    assert refusal is None or refusal.next_step, refusal


@given(st.text(alphabet="0123456789: -x²٣", max_size=14))
def test_batch_sizes_of_any_text(text: str) -> None:
    if refused(BatchProfile.parse, text) is None:
        found = BatchProfile.parse(text)
        assert 1 <= found.minimum <= found.optimum <= found.maximum
