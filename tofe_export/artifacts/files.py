"""Atomic writes and hashes. A killed run or a full disk leaves the old file or none, never half a file.

What is not a regular file (a device, a FIFO, `-` for standard output) is written into; links are followed and stay.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tofe_export.artifacts.commands import quoted
from tofe_export.artifacts.parts import part_of, sweep, sync, sync_folder
from tofe_export.artifacts.places import is_stream, is_there, real_file, reason_of, send, writable
from tofe_export.errors import InputError, MissingError


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yields a temporary path beside `target`; on success it is synced and renamed into place.

    An existing file keeps its mode; a link stays and the file behind it is replaced. Other hard links keep the old
    content. Into a device, a FIFO or `-` the content is copied at the end.

    Args:
        target: the file to create or replace. Its folder is made when missing.

    Raises:
        MissingError: the disk is full.
        InputError: the folder cannot be written, or `target` is a folder or write-protected.
    """
    if is_stream(target):
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / "content"
            yield temporary
            write_bytes(target, temporary.read_bytes())
        return
    with explained(target):
        file = prepared(target)
        with part_of(file) as part:
            yield part
            sync(part)
            part.replace(file)
            sync_folder(file.parent)


def write_bytes(target: Path, content: bytes) -> None:
    """Writes `content` to `target` as `atomic_path` does."""
    if is_stream(target):
        # That nobody reads it any more is no failure.
        with explained(target), contextlib.suppress(BrokenPipeError):
            send(target, content)
        return
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def write_text(target: Path, content: str) -> None:
    """Writes `content` to `target` as `atomic_path` does, in UTF-8; what that cannot hold is escaped as in JSON."""
    write_bytes(target, content.encode("utf-8", "backslashreplace"))


def write_json(target: Path, document: dict[str, Any]) -> None:
    """Writes `document` to `target` as `atomic_path` does, indented, with a final newline."""
    write_text(target, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, next_step: str = "Make it again, or check the path.") -> dict[str, Any]:
    """The JSON object in `path`; a byte order mark before it is passed over.

    Raises:
        InputError: the file is missing, unreadable, not JSON, or not an object.
    """
    document = parse_json(_text(path, "JSON", next_step), str(path), next_step)
    if not isinstance(document, dict):
        raise InputError(f"{path} holds a JSON {type(document).__name__}, not an object.", next_step)
    return document


def parse_json(text: str | bytes, name: str, next_step: str) -> Any:
    """What a JSON text says; numbers above 1e308 are infinite.

    Args:
        text: in UTF-8 where it is bytes.
        name: of where it stands, for messages.
        next_step: what to do where it is none.

    Raises:
        InputError: no JSON, or more than this program can hold: a number of thousands of digits, thousands of brackets.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unreadable(name, "JSON", error, next_step) from error


def read_toml(path: Path, next_step: str) -> dict[str, Any]:
    """The tables in the TOML file `path`.

    Raises:
        InputError: the file is missing, unreadable or not TOML.
    """
    try:
        return tomllib.loads(_text(path, "TOML", next_step))
    except (ValueError, RecursionError) as error:
        raise _unreadable(str(path), "TOML", error, next_step) from error


def _text(path: Path, what: str, next_step: str) -> str:
    require_file(path, next_step)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _unreadable(str(path), what, error, next_step) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {reason_of(error)}.", "Check its permissions.") from error


def _unreadable(name: str, what: str, error: Exception, next_step: str) -> InputError:
    """Python's own words for numbers too long and for nesting too deep are about Python."""
    if isinstance(error, RecursionError):
        why = "its brackets nest too deeply"
    elif "integer string conversion" in str(error):
        why = "it holds a number of thousands of digits"
    else:
        why = str(error)
    return InputError(f"{name} is not a {what} file: {why}.", next_step)


def require_file(path: Path, next_step: str = "Check the path.") -> None:
    """Raises InputError unless `path` is a file that exists; see also `is_there`."""
    if not is_there(path):
        raise InputError(f"{path} does not exist.", next_step)
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a file.", next_step)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of the file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def prepared(target: Path) -> Path:
    """The file that a write to `target` replaces, with its folder made and the litter of killed runs swept away.

    Raises:
        InputError: `target` is a folder, is not a regular file, or is write-protected.
        OSError: its folder cannot be made.
    """
    if target.is_dir():
        raise InputError(f"{target} is a folder, not a file.", "Name a file to write.")
    if is_stream(target):
        raise InputError(f"{target} is not a regular file, which is needed here.", "Name a file to write.")
    file = real_file(target)
    if file.exists() and not writable(file):
        raise InputError(
            f"{target} is write-protected.", f"Type: chmod u+w {quoted(target)}, or choose another place for it."
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    sweep(file)
    return file


@contextlib.contextmanager
def explained(target: Path) -> Iterator[None]:
    """Turns an OSError of a write to `target` into a sentence; `target` must be as it was before.

    Raises:
        MissingError: the disk is full.
        InputError: anything else.
    """
    try:
        yield
    except OSError as error:
        raise _sentence(error, target) from error


def _sentence(error: OSError, target: Path) -> InputError | MissingError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MissingError(
            f"The disk is full: {target} was not written, and what was there before is untouched.",
            f"Free some space in {target.parent}, or name a place on another disk.",
        )
    return InputError(f"{target} cannot be written: {reason_of(error)}.", "Choose another place for it.")
