"""What every document does with numbers, texts and nesting that JSON can hold and this program cannot use."""

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from tests.helpers import refusal
from tofe_export.documents.base import Document, Part, read_document
from tofe_export.documents.fields import AnyValue, Count, Flag, Name, Number, Share, Text, plain


class Inner(Part):
    count: Count = 0
    share: Share = 0.5


class Example(Document):
    schema_: Literal["tofe-export/example/1"] = Field(default="tofe-export/example/1", alias="schema")
    name: Name = "a"
    text: Text = ""
    number: Number = 1.0
    flag: Flag = True
    inner: Inner = Inner()
    several: tuple[Inner, ...] = ()
    by_name: dict[Text, Number] = {}  # noqa: RUF012 - pydantic copies it
    anything: dict[Text, AnyValue] = {}  # noqa: RUF012 - as above


SCHEMA = '"schema": "tofe-export/example/1"'


def read(tmp_path: Path, fields: str) -> Example:
    path = tmp_path / "example.json"
    path.write_text("{" + SCHEMA + ", " + fields + "}", encoding="utf-8")
    return read_document(Example, path, "Make it again.")


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        (f'"number": {"9" * 400}', "number", "it should be a number"),
        (f'"number": -{"9" * 400}', "number", "it should be a number"),
        ('"number": 1e999', "number", "it should be a finite number"),
        ('"number": NaN', "number", "it should be a finite number"),
        ('"number": -Infinity', "number", "it should be a finite number"),
        ('"number": true', "number", "it should be a number"),
        ('"number": "1"', "number", "it should be a number"),
        ('"number": null', "number", "it should be a number"),
        ('"inner": {"count": true}', "inner.count", "it should be a whole number"),
        ('"inner": {"count": 1.0}', "inner.count", "it should be a whole number"),
        (f'"inner": {{"count": {"9" * 400}}}', "inner.count", "less than or equal to 1000000000"),
        ('"inner": {"count": -1}', "inner.count", "greater than or equal to 0"),
        ('"inner": {"share": NaN}', "inner.share", "it should be"),
        ('"inner": [1]', "inner", "it should be an object"),
        ('"flag": 1', "flag", "it should be true or false"),
        ('"flag": "true"', "flag", "it should be true or false"),
        ('"name": ""', "name", "it should be a name"),
        ('"name": 1', "name", "it should be a text"),
        ('"text": ["a"]', "text", "it should be a text"),
        ('"several": {}', "several", "it should be a list"),
        ('"several": "ab"', "several", "it should be a list"),
        ('"several": [{}, {"count": []}]', "several.1.count", "it should be a whole number"),
        ('"by_name": {"a": 1, "b": {}}', "by_name.b", "it should be a number"),
        ('"anything": {"a": [1, {"b": NaN}]}', "anything.a", "it should hold finite numbers only"),
        ('"anything": {"a": 1e999}', "anything.a", "it should hold finite numbers only"),
    ],
)
def test_a_field_that_cannot_be_used_is_named(tmp_path: Path, fields: str, field: str, reason: str) -> None:
    error = refusal(read, tmp_path, fields)
    assert (error.code, error.details["field"], error.exit_code) == ("document-field", field, 2)
    assert f"{tmp_path / 'example.json'} has no usable {field!r}: " in error.message
    assert reason in error.message
    assert error.next_step == "Make it again."


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("[" * 2000 + "]" * 2000, None),
        ("{" + SCHEMA + ', "text": ' + "[" * 2000 + "]" * 2000 + "}", None),
        ("{" + SCHEMA + ', "number": ' + "9" * 5000 + "}", "not-json"),
        ("{" + SCHEMA + "}}", "not-json"),
        ("", "not-json"),
        ("null", "json-kind"),
        ('"text"', "json-kind"),
        ("{}", "document-schema"),
        ('{"schema": null}', "document-schema"),
        ('{"schema": ["tofe-export/example/1"]}', "document-schema"),
        ('{"schema": "tofe-export/example/2"}', "document-schema"),
        ('{"schema": "' + "x" * 100_000 + '"}', "document-schema"),
    ],
    ids=[
        *("brackets", "brackets inside", "digits", "one more", "empty", "null", "text", "object"),
        *("no schema", "a list", "a later schema", "a long schema"),
    ],
)
def test_what_is_not_the_document(tmp_path: Path, content: str, code: str | None) -> None:
    path = tmp_path / "example.json"
    path.write_text(content)
    error = refusal(read_document, Example, path, "Make it again.")
    # How many brackets Python's reader takes depends on its version.
    assert error.code in ((code,) if code else ("not-json", "json-kind", "document-field"))
    assert (error.next_step, error.exit_code) == ("Make it again.", 2)
    assert len(error.message) < 300


@pytest.mark.parametrize("depth", [100, 200, 300, 900])
def test_nesting_inside_what_may_hold_anything(tmp_path: Path, depth: int) -> None:
    fields = '"anything": {"a": ' + "[" * depth + "]" * depth + "}"
    if depth <= 200:
        document = read(tmp_path, fields)
        assert json.loads(document.to_json())["anything"] == document.anything
    else:
        error = refusal(read, tmp_path, fields)
        assert error.code == "document-field"
        assert len(error.message) < 400


def test_any_text_is_read_and_written(tmp_path: Path) -> None:
    texts = ["half \ud800", "byte \udcff", "\x00\x1b[31m", "\u2028", "é 模型"]
    document = Example(name=texts[0], text=texts[1], by_name=dict.fromkeys(texts, 1.0), anything={texts[0]: texts})
    path = tmp_path / "example.json"
    path.write_text(document.to_json(), encoding="utf-8", errors="backslashreplace")
    again = read_document(Example, path, "")
    assert again == document
    assert again.to_json() == document.to_json()
    assert again.replaced(text="b").text == "b"


def test_keys_that_nobody_knows_are_ignored(tmp_path: Path) -> None:
    assert read(tmp_path, '"of a later version": [[{}]], "inner": {"count": 3, "more": NaN}').inner.count == 3


def test_a_key_is_shown_however_long_it_is(tmp_path: Path) -> None:
    error = refusal(read, tmp_path, '"by_name": {"' + "x" * 100_000 + '": null}')
    assert error.code == "document-field"
    assert len(error.message) < 500


def test_documents_do_not_change_and_are_checked_when_made() -> None:
    document = Example()
    with pytest.raises(ValidationError):
        document.name = "b"
    for wrong in ({"number": float("nan")}, {"flag": 1}, {"inner": {"count": True}}):
        with pytest.raises(ValidationError):
            document.replaced(**wrong)
    assert Example(number=2).to_dict()["schema"] == Example.schema_name() == "tofe-export/example/1"
    assert Example(several=(Inner(),)).to_dict()["several"] == [{"count": 0, "share": 0.5}]


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(_ANY)
def test_any_value_can_be_made_plain(value: Any) -> None:
    document = Example(anything={"value": plain(value)})
    assert json.loads(document.to_json())["anything"]["value"] == plain(value)


def test_a_list_inside_itself_is_cut_off() -> None:
    value: list[Any] = []
    value.append(value)
    Example(anything={"value": plain(value)})
    assert plain({"a": float("inf"), "b": (1, 2.5), 3: b"x"}) == {"a": None, "b": [1, 2.5], "3": "b'x'"}
