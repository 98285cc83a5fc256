"""What every document shares: frozen classes that are checked once, and one way to read and to write them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from tofe_export.errors import InputError, brief
from tofe_export.files.reading import read_json

_WORDS = {
    "^Value error, ": "",
    "^Input should": "it should",
    "^Field required": "it is missing",
    "an instance of str": "a text",
    "a valid string(, unable to parse raw data as a unicode string)?": "a text",
    r"a valid dictionary( or instance of \w+)?": "an object",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "a valid (tuple|list)": "a list",
}
"""Phrases of pydantic, and the words that a user knows."""
_DEEPEST = 8  # parts of a field's name
_LONGEST = 200  # characters of it


class Part(BaseModel):
    """A JSON object inside a document. Keys that it does not name are ignored, so newer documents still load."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", populate_by_name=True, json_schema_serialization_defaults_required=True
    )

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, as JSON has them: lists, and the names of the JSON keys."""
        # Not by pydantic's JSON mode, which replaces lone surrogates in keys.
        plain: dict[str, Any] = json.loads(json.dumps(self.model_dump(by_alias=True)))
        return plain

    def replaced(self, **changes: Any) -> Self:
        """A checked copy with other values."""
        return type(self).model_validate({**vars(self), **changes})


class Document(Part):
    """A whole JSON file; each kind says its schema in a field `schema_`."""

    @classmethod
    def schema_name(cls) -> str:
        """For example "tofe-export/bench/1"."""
        return str(cls.model_fields["schema_"].default)

    def to_json(self) -> str:
        """The document as JSON text, indented, with a final newline."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


AnyPart = TypeVar("AnyPart", bound=Part)
AnyDocument = TypeVar("AnyDocument", bound=Document)


def read_document(kind: type[AnyDocument], path: Path, next_step: str) -> AnyDocument:
    """The document of a kind in a file; `next_step` says how to make it again.

    Raises:
        InputError: missing, not JSON, of another schema, or a field that is missing or not of its kind; it is named.
    """
    content = read_json(path, next_step)
    if content.get("schema") != kind.schema_name():
        message = f"{path} has the schema {brief(content.get('schema'))}, not {kind.schema_name()!r}."
        raise InputError(message, next_step, code="document-schema", path=path, schema=kind.schema_name())
    return parse(kind, content, str(path), next_step)


def parse(kind: type[AnyPart], content: Mapping[str, Any], name: str, next_step: str) -> AnyPart:
    """Checks every field of the JSON object in the file `name`; `next_step` says how to make it again.

    Raises:
        InputError: a field is missing, or not of its kind; it is named.
    """
    try:
        return kind.model_validate(dict(content))
    except ValidationError as error:
        place, reason = first_problem(error)
        if not place:  # fields that contradict each other
            place, _, reason = reason.partition(": ")
        raise InputError(
            f"{name} has no usable {place!r}: {reason}.", next_step, code="document-field", field=place, file=name
        ) from None


def first_problem(error: ValidationError) -> tuple[str, str]:
    """The dotted name of the first field that cannot be used, and why, in the user's words."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    parts = [str(part) for part in first["loc"]]
    place = ".".join(parts if len(parts) <= _DEEPEST else [*parts[:_DEEPEST], "..."])
    return (place if len(place) <= _LONGEST else f"{place[:_LONGEST]}..."), reason_of(first)


def reason_of(problem: ErrorDetails) -> str:
    """Why a value cannot be used: "it should be a whole number"."""
    reason = problem["msg"]
    for phrase, words in _WORDS.items():
        reason = re.sub(phrase, words, reason)
    return f"{reason[:1].lower()}{reason[1:]}"
