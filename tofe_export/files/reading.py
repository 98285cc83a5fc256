"""Reads JSON, TOML and hashes; whatever is wrong with a file becomes a sentence that names it."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tofe_export.errors import InputError
from tofe_export.files.places import is_there, reason_of


def read_json(path: Path, next_step: str = "Make it again, or check the path.") -> dict[str, Any]:
    """The JSON object in `path`; a byte order mark before it is skipped.

    Raises:
        InputError: the file is missing, unreadable, not JSON, or not an object.
    """
    document = _parsed(json.loads, path, "JSON", next_step)
    if not isinstance(document, dict):
        raise InputError(
            f"{path} holds a JSON {type(document).__name__}, not an object.", next_step, code="json-kind", path=path
        )
    return document


def parse_json(text: str | bytes, name: str, next_step: str) -> Any:
    """What a JSON text says, in UTF-8 where it is bytes; numbers above 1e308 are infinite.

    Raises:
        InputError: not JSON, or a number of thousands of digits, or thousands of nested brackets.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unreadable(name, "JSON", error, next_step) from error


def read_toml(path: Path, next_step: str) -> dict[str, Any]:
    """The tables in the TOML file `path`; InputError where it is missing, unreadable or not TOML."""
    tables: dict[str, Any] = _parsed(tomllib.loads, path, "TOML", next_step)
    return tables


def _parsed(parse: Callable[[str], Any], path: Path, kind: str, next_step: str) -> Any:
    require_file(path, next_step)
    try:
        return parse(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # also bytes that are not UTF-8
        raise _unreadable(str(path), kind, error, next_step) from error
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {reason_of(error)}.", "Check its permissions.", code="unreadable", path=path
        ) from error


def _unreadable(name: str, kind: str, error: Exception, next_step: str) -> InputError:
    """Code "not-json" or "not-toml". Python's own words for numbers too long and nesting too deep are about Python."""
    if isinstance(error, RecursionError):
        why = "its brackets nest too deeply"
    elif "integer string conversion" in str(error):
        why = "it holds a number of thousands of digits"
    else:
        why = str(error)
    return InputError(f"{name} is not a {kind} file: {why}.", next_step, code=f"not-{kind.lower()}", file=name)


def require_file(path: Path, next_step: str = "Check the path.", code: str = "no-file") -> None:
    """Raises InputError, with this code, unless `path` is a file that exists; see also `is_there`."""
    if not is_there(path):
        raise InputError(f"{path} does not exist.", next_step, code=code, path=path)
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a file.", next_step, code="folder", path=path)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of the file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
