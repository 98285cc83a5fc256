"""A model in Triton's repository: a folder of its own, or another version in one that serves already."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from tofe_export.artifacts.artifact import Artifact
from tofe_export.artifacts.manifests import files_of
from tofe_export.bounds import require_within
from tofe_export.errors import InputError, brief
from tofe_export.files.folders import new_folder
from tofe_export.files.parts import folder_lock
from tofe_export.files.writing import atomic_path, write_text
from tofe_export.packages import triton
from tofe_export.packages.triton import Backend

_MOST_VERSION = 1_000_000


@dataclass(frozen=True)
class Addition:
    """A file that is to become a version of the model `name`, and the configuration for it."""

    name: str
    artifact: Artifact
    backend: Backend
    config: str


def require_name(name: str) -> str:
    """Raises InputError for a name that could not be a folder of the repository, or would need quotes."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", name):
        raise InputError(
            f"A model in the repository cannot be called {brief(name)}.",
            "Give a `name` of letters, digits, _, - and points.",
            code="model-name",
            name=name,
        )
    return name


def add(repository: Path, what: Addition, version: int | None) -> tuple[int, list[Path]]:
    """Adds a model, or a version to one that is there, which appears whole, by one rename.

    The configuration is checked and written beside its place before; it takes its place right after. Two versions have
    the same inputs and outputs, so that a server may read either configuration with either of them.

    Returns:
        The number of the version, and the files that were written.

    Raises:
        InputError: a version that is there or is not above the others, other inputs or outputs than those that are
            served, or a place that cannot be written.
        MissingError: the disk is full.
    """
    folder = repository / what.name
    with folder_lock(folder if folder.is_dir() else repository.parent):
        number = _version(folder, version)
        if not folder.exists():
            with new_folder(folder, beside=repository) as part:
                _write_version(part / str(number), what)
                (part / triton.CONFIG).write_text(what.config, encoding="utf-8")
                _write_labels(part, what)
        else:
            _require_same_interface(folder, what)
            with atomic_path(folder / triton.CONFIG) as config:
                config.write_text(what.config, encoding="utf-8")
                with new_folder(folder / str(number), beside=repository) as part:
                    _write_version(part, what)
            _write_labels(folder, what)
    known = [folder / name for name in (triton.CONFIG, triton.LABELS)]
    return number, [path for path in (*known, *sorted((folder / str(number)).iterdir())) if path.is_file()]


def _version(folder: Path, version: int | None) -> int:
    there = [int(path.name) for path in folder.glob("[0-9]*") if path.name.isdecimal()] if folder.is_dir() else []
    following = max(there, default=0) + 1
    if version is None:
        return following
    require_within("version", version, 1, _MOST_VERSION)
    if version < following:
        raise InputError(
            f"{folder} has version {following - 1}, and the server takes the highest.",
            f"Give {following} or a higher one, or leave `version` out.",
            code="version-exists",
            path=folder,
        )
    return version


def _require_same_interface(folder: Path, what: Addition) -> None:
    config = folder / triton.CONFIG
    text = config.read_text(encoding="utf-8", errors="replace") if config.is_file() else ""
    if triton.interface_of(text) != triton.interface_of(what.config):
        raise InputError(
            f"{config} describes another backend, other inputs or other outputs than {what.artifact.path} has.",
            "Give the model another `name`, for its clients would have to know of it.",
            code="another-interface",
            path=config,
        )


def _write_version(folder: Path, what: Addition) -> None:
    """The model under the name that its backend looks for, and what belongs to it."""
    folder.mkdir(exist_ok=True)
    file, source = triton.file_of(what.backend), what.artifact.path
    for path in filter(Path.exists, files_of(source)):  # no manifest waits where the file was read
        own = path.name.removeprefix(source.name)
        weights = path.suffix == ".data"  # the file refers to them by name
        shutil.copyfile(os.path.realpath(path), folder / (path.name if weights else f"{file}{own}"))
    if what.backend == "python":
        shutil.copyfile(triton.PYTHON_MODEL, folder / "model.py")


def _write_labels(folder: Path, what: Addition) -> None:
    if what.artifact.manifest.classes:
        write_text(folder / triton.LABELS, triton.labels(what.artifact))
