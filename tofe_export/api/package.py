"""From a deployed file to the folder that a server loads."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tofe_export.api.load import AnyArtifact
from tofe_export.artifacts.artifact import Artifact, open_artifact
from tofe_export.artifacts.manifests import files_of
from tofe_export.bounds import LARGEST_BATCH, MOST_THREADS, require_within
from tofe_export.errors import InputError, brief
from tofe_export.files.writing import write_text
from tofe_export.packages import triton, web
from tofe_export.packages.folders import new_folder
from tofe_export.packages.triton import Backend, TritonSettings

Target = Literal["triton", "web"]
_CONFIG = "config.pbtxt"
_MOST_INSTANCES, _MOST_VERSION, _LONGEST_DELAY = 256, 1_000_000, 10_000_000


@dataclass(frozen=True)
class Packaged:
    """What was written.

    Attributes:
        path: the model's folder in the repository, or that of the page.
        files: all that was written.
        version: the numbered folder of this file; None for a page.
        backend: what runs it.
    """

    path: Path
    files: tuple[Path, ...]
    version: int | None
    backend: Backend | Literal["onnxruntime-web"]


def package(
    model: AnyArtifact,
    path: Path | str,
    *,
    target: Target = "triton",
    name: str | None = None,
    version: int | None = None,
    python: bool = False,
    settings: TritonSettings | None = None,
    runtime: Path | str | None = None,
) -> Packaged:
    """Puts a model into a folder that a server loads: a repository of models, or a page for browsers.

    A folder is in its place whole or not at all. A model that is in the repository gets another version, and a server
    that watches it answers with the old file or with the new one.

    Args:
        model: an ONNX file or an engine, with its manifest.
        path: the repository, which is made where it is missing; or the folder of the page, which must not be there.
        target: "triton", Triton Inference Server; or "web", a page that runs the model in the visitor's browser and
            draws its tokens, for any server of files.
        name: of the model in the repository; None takes that of the file.
        version: a number above those that are there; None takes the next one.
        python: run it by Triton's Python backend and ONNX Runtime, where the server has no backend for it.
        settings: instances, threads and batches.
        runtime: for a page, the folder `dist` of the npm package onnxruntime-web.

    Raises:
        InputError: see `open_artifact`, `backend_of`, `config` and `require_for_web`; a name or number that cannot be,
            an argument for another target, something that is there already, or a folder that cannot be written.
        MissingError: onnxruntime-web is not in `runtime`, or the disk is full.
    """
    if target == "web":
        for what, given in {"name": name, "version": version, "python": python or None, "settings": settings}.items():
            if given is not None:
                raise InputError(f"`{what}` is for Triton.", "Leave it out.", code="for-triton-only")
        return _page(model, Path(path), runtime)
    if target != "triton":
        raise InputError(f"`target` is {brief(target)}.", "Give triton or web.", code="target-unknown")
    if runtime is not None:
        raise InputError("`runtime` is for a page.", "Leave it out.", code="for-web-only")
    return _repository(model, Path(path), name, version, python, settings or TritonSettings())


def _page(model: AnyArtifact, path: Path, runtime: Path | str | None) -> Packaged:
    found = web.require_runtime(None if runtime is None else Path(runtime))
    artifact = open_artifact(model)
    web.require_for_web(artifact)
    with new_folder(path) as part:
        web.write_site(part, artifact, found)
    return Packaged(path, tuple(file for file in sorted(path.rglob("*")) if file.is_file()), None, "onnxruntime-web")


def _repository(
    model: AnyArtifact, path: Path, name: str | None, version: int | None, python: bool, chosen: TritonSettings
) -> Packaged:
    _require_settings(chosen)
    artifact = open_artifact(model)
    named = _require_name(artifact.path.stem if name is None else name)
    backend = triton.backend_of(artifact, python)
    text = triton.config(named, artifact, backend, chosen)
    folder = path / named
    number = _version(folder, version)
    if not folder.exists():
        with new_folder(folder) as part:
            _write_version(part / str(number), artifact, backend)
            _write_config(part, text, artifact)
    else:
        with new_folder(folder / str(number)) as part:
            _write_version(part, artifact, backend)
        _write_config(folder, text, artifact)
    written = [folder / _CONFIG, *sorted((folder / str(number)).iterdir())]
    return Packaged(folder, tuple(written), number, backend)


def _require_settings(settings: TritonSettings) -> None:
    require_within("instances", settings.instances, 1, _MOST_INSTANCES)
    require_within("threads", 1 if settings.threads is None else settings.threads, 1, MOST_THREADS)
    require_within("batch", settings.batch, 1, LARGEST_BATCH)
    require_within("delay_us", settings.delay_us, 0, _LONGEST_DELAY)


def _require_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", name):
        raise InputError(
            f"A model in the repository cannot be called {brief(name)}.",
            "Give a `name` of letters, digits, _, - and points.",
            code="model-name",
            name=name,
        )
    return name


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


def _write_version(folder: Path, artifact: Artifact, backend: Backend) -> None:
    """The model under the name that its backend looks for, and what belongs to it."""
    folder.mkdir(exist_ok=True)
    file = triton.file_of(backend)
    for path in filter(Path.exists, files_of(artifact.path)):  # no manifest waits where the file was read
        own = path.name.removeprefix(artifact.path.name)
        weights = path.suffix == ".data"  # the file refers to them by name
        shutil.copyfile(os.path.realpath(path), folder / (path.name if weights else f"{file}{own}"))
    if backend == "python":
        shutil.copyfile(triton.PYTHON_MODEL, folder / "model.py")


def _write_config(folder: Path, text: str, artifact: Artifact) -> None:
    if artifact.manifest.classes:
        write_text(folder / triton.LABELS, triton.labels(artifact))
    write_text(folder / _CONFIG, text)
