"""Folders that appear whole: filled under a hidden name elsewhere, and renamed."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tofe_export.errors import InputError
from tofe_export.files.parts import lock_of, sync, sync_folder
from tofe_export.files.writing import explained


@contextlib.contextmanager
def new_folder(target: Path, beside: Path | None = None) -> Iterator[Path]:
    """Yields an empty folder, and gives it the name `target` when all is written; else nothing is left.

    What a kill leaves is removed by the next call for the same `beside`.

    Args:
        target: the folder to be.
        beside: its hidden name lies beside this one: a server takes every folder in its repository for a model. None is
            `target`; so is another file system, where nothing can be renamed to.

    Raises:
        InputError: `target` is there already, or its place cannot be written.
        MissingError: the disk is full.
    """
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        place = target if beside is None or _apart(beside.parent, target.parent) else beside
        _sweep(place)
        part = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".part", dir=place.parent))
        handle = lock_of(part)
        try:
            part.chmod(0o755)
            yield part
            for path in sorted(part.rglob("*"), reverse=True):
                sync_folder(path) if path.is_dir() else sync(path)
            try:
                os.rename(part, target)  # noqa: PTH104 - `Path.rename` says the same, but for what it refuses
            except OSError as error:
                if not target.exists():
                    raise
                raise InputError(
                    f"{target} is there already.", "Choose another place for it.", code="folder-exists", path=target
                ) from error
            sync_folder(target.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)
            if handle is not None:
                os.close(handle)


def _apart(one: Path, other: Path) -> bool:
    return one.stat().st_dev != other.stat().st_dev


def _sweep(place: Path) -> None:
    """Removes what killed runs left; a live one holds its lock. Without locks here nothing is removed."""
    ours = re.compile(rf"\.{re.escape(place.name)}\.[a-z0-9_]{{8}}\.part")  # as `tempfile` names them
    for left in place.parent.glob(f".{glob.escape(place.name)}.*.part"):
        if ours.fullmatch(left.name) and (handle := lock_of(left)) is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(handle)
