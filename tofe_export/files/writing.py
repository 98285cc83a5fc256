"""Atomic writes. A killed run or a full disk leaves the old file or none, never half a file.

What is not a regular file (a device, a FIFO, `-` for standard output) is written into; links are followed and stay.
"""

from __future__ import annotations

import contextlib
import errno
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tofe_export.errors import InputError, MissingError
from tofe_export.files.parts import part_of, sweep, sync, sync_folder
from tofe_export.files.places import is_stream, real_file, reason_of, send, writable


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yields a temporary path beside `target`; on success it is synced and renamed into place.

    An existing file keeps its mode; a link stays and the file behind it is replaced. Other hard links keep the old
    content. Into a device, a FIFO or `-` the content is copied at the end. Its folder is made when missing.

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
        # A reader that went away is not a failure.
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


def prepared(target: Path) -> Path:
    """The file that a write to `target` replaces, with its folder made and the litter of killed runs swept away.

    Raises:
        InputError: `target` is a folder, is not a regular file, or is write-protected.
        OSError: its folder cannot be made.
    """
    if target.is_dir():
        raise InputError(f"{target} is a folder, not a file.", "Name a file to write.", code="folder", path=target)
    if is_stream(target):
        message = f"{target} is not a regular file, which is required here."
        raise InputError(message, "Name a file to write.", code="not-regular", path=target)
    file = real_file(target)
    if file.exists() and not writable(file):
        raise InputError(
            f"{target} is write-protected.",
            "Change its permissions, or choose another place for it.",
            code="write-protected",
            path=target,
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    sweep(file)
    return file


@contextlib.contextmanager
def explained(target: Path) -> Iterator[None]:
    """Turns an OSError of a write to `target` into a MissingError (the disk is full) or an InputError.

    `target` must be as it was before.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise MissingError(
                f"The disk is full: {target} was not written, and what was there before is untouched.",
                f"Free some space in {target.parent}, or name a place on another disk.",
                code="disk-full",
                path=target,
            ) from error
        message = f"{target} cannot be written: {reason_of(error)}."
        raise InputError(message, "Choose another place for it.", code="not-writable", path=target) from error
