"""What a verb is asked to write, looked at before its work begins."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from tofe_export.artifacts.manifest import files_of
from tofe_export.artifacts.places import is_stream, real_file
from tofe_export.errors import InputError

_ELSEWHERE = "Choose another place for it."


def require_writable(outputs: Iterable[Path | None], inputs: Iterable[Path | None] = ()) -> None:
    """Refuses what could not be written after the work, or would replace an input, its manifest or another output.

    Args:
        outputs: files to write; None is one that was not asked for. A device, a FIFO or `-` can always be written.
        inputs: files that are read, likewise.

    Raises:
        InputError: says which file, and why not.
    """
    taken = {file.resolve() for path in inputs if path is not None for file in files_of(path)}
    for path in outputs:
        if path is None or is_stream(path):
            continue
        if path.resolve() in taken:
            raise InputError(f"{path} would be overwritten, though it is named for something else.", _ELSEWHERE)
        if path.is_dir():
            raise InputError(f"{path} cannot be written: it is a folder.", "Name a file in it.")
        there = next(folder for folder in real_file(path).absolute().parents if folder.exists())
        if not there.is_dir():
            raise InputError(f"{path} cannot be written: {there} is a file.", _ELSEWHERE)
        if not os.access(there, os.W_OK | os.X_OK):
            raise InputError(f"{path} cannot be written: {there} is not yours to write.", _ELSEWHERE)
        taken.add(path.resolve())
