"""Atomic writes and hashes. A killed run or a full disk leaves the old file or none, never half a file."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tofe_export.errors import InputError, MissingError


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yields a temporary path beside `target`; on success it is synced and renamed into place.

    Args:
        target: the file to create or replace. Its folder is made when missing.

    Raises:
        MissingError: the disk is full.
        InputError: the folder cannot be written, or `target` is a folder.
    """
    if target.is_dir():
        raise InputError(f"{target} is a folder, not a file.", "Name a file to write.")
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.{os.getpid()}-", suffix=".part", dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        temporary.chmod(0o666 & ~_umask())
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(target)
    except OSError as error:
        raise _explain(error, target) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_bytes(target: Path, content: bytes) -> None:
    """Writes `content` to `target` atomically."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def write_text(target: Path, content: str) -> None:
    """Writes `content` to `target` atomically, as UTF-8; what that cannot hold is escaped, as JSON escapes it."""
    write_bytes(target, content.encode("utf-8", "backslashreplace"))


def write_json(target: Path, document: dict[str, Any]) -> None:
    """Writes `document` to `target` atomically, indented, with a final newline."""
    write_text(target, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`.

    Raises:
        InputError: the file is missing, unreadable, not JSON, or not an object.
    """
    require_file(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also an integer of 5,000 digits, and a list 5,000 deep
        raise InputError(f"{path} is not a JSON file ({error}).") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    if not isinstance(document, dict):
        raise InputError(f"{path} holds a JSON {type(document).__name__}, not an object.")
    return document


def require_file(path: Path, next_step: str = "Check the path.") -> None:
    """Raises InputError unless `path` is a file that exists."""
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a file.", next_step)
    if not path.exists():
        raise InputError(f"{path} does not exist.", next_step)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of the file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sweep(target: Path) -> None:
    """Removes what killed runs left of the same target; a run that is alive keeps its own."""
    for part in target.parent.glob(f".{glob.escape(target.name)}.*-*.part"):
        owner = part.name.removeprefix(f".{target.name}.").partition("-")[0]
        if owner.isdecimal() and not _alive(int(owner)):
            part.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _explain(error: OSError, target: Path) -> InputError | MissingError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MissingError(
            f"The disk is full: {target} was not written, and what was there before is untouched.",
            f"Free some space in {target.parent}, or name a place on another disk.",
        )
    return InputError(f"{target} cannot be written: {error.strerror or error}.", "Choose another place for it.")
