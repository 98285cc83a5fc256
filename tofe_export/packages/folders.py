"""Folders that appear whole: filled under a hidden name, and renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tofe_export.errors import InputError
from tofe_export.files.parts import sync, sync_folder
from tofe_export.files.writing import explained


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yields an empty folder beside `target`, and gives it that name when all is written; else nothing is left.

    Raises:
        InputError: `target` is there already, or its place cannot be written.
        MissingError: the disk is full.
    """
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
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
