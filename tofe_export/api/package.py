"""From a deployed file to the folder that a server loads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tofe_export.api.load import AnyArtifact
from tofe_export.artifacts.artifact import open_artifact
from tofe_export.bounds import LARGEST_BATCH, MOST_THREADS, require_within
from tofe_export.data.image_log import ImageLog
from tofe_export.data.sources import open_source
from tofe_export.documents.images import ImagesRead
from tofe_export.errors import InputError, brief
from tofe_export.files.folders import new_folder
from tofe_export.files.writing import write_text
from tofe_export.packages import kserve, repository, triton, web
from tofe_export.packages.repository import Addition
from tofe_export.packages.triton import Backend, TritonSettings

Target = Literal["triton", "kserve", "web"]
_MOST_INSTANCES, _LONGEST_DELAY = 256, 10_000_000


@dataclass(frozen=True)
class Packaged:
    """What was written.

    Attributes:
        path: the model's folder in the repository, or that of the page.
        files: all that was written.
        version: the numbered folder of this file; None for a page.
        backend: what runs it.
        images: for a page, which images were read and omitted; None where there were none to read.
    """

    path: Path
    files: tuple[Path, ...]
    version: int | None
    backend: Backend | Literal["onnxruntime-web"]
    images: ImagesRead | None = None


def package(
    model: AnyArtifact,
    path: Path | str,
    *,
    target: Target = "triton",
    name: str | None = None,
    version: int | None = None,
    python: bool = False,
    settings: TritonSettings | None = None,
    storage_uri: str | None = None,
    runtime: Path | str | None = None,
    data: Path | str | None = None,
    webgpu: bool = False,
) -> Packaged:
    """Puts a model into a folder that a server loads: a repository of models, or a page for browsers.

    A folder is in its place whole or not at all. A model that is in the repository gets another version, and a server
    that watches it answers with the old file or with the new one.

    Args:
        model: an ONNX file or an engine, with its manifest.
        path: the repository, which is made where it is missing; or the folder of the page, which must not be there.
        target: "triton", Triton Inference Server; "kserve", the same with a KServe manifest and a Dockerfile; or "web",
            a page that runs the model in the visitor's browser and draws its tokens, for any server of files.
        name: of the model in the repository; None takes that of the file.
        version: a number above those that are there; None takes the next one.
        python: run it by Triton's Python backend and ONNX Runtime, where the server has no backend for it.
        settings: instances, threads and batches.
        storage_uri: for KServe, the address that the repository will have: "s3://models/repository", "pvc://...".
        runtime: for a page, the folder `dist` of the npm package onnxruntime-web.
        webgpu: the page computes on the visitor's GPU where the browser offers one.
        data: for a page, images of which visitors find a few on it; they will be as public as the page.

    Raises:
        InputError: see `open_artifact`, `open_source`, `backend_of`, `config`, `repository.add` and `require_for_web`;
            a name or number that cannot be, an argument for another target, or a file that would be lost.
        MissingError: onnxruntime-web is not in `runtime`, or the disk is full.
    """
    if target == "web":
        _leave_out("a repository", name=name, version=version, python=python or None, settings=settings)
        _leave_out("KServe", storage_uri=storage_uri)
        return _page(model, Path(path), runtime, webgpu, data)
    if target not in ("triton", "kserve"):
        raise InputError(
            f"`target` is {brief(target)}.",
            "Give triton, kserve or web; tofe_export.program makes those for phones.",
            code="target-unknown",
        )
    _leave_out("a page", runtime=runtime, data=data, webgpu=webgpu or None)
    chosen = settings or TritonSettings()
    _require_settings(chosen)
    if target == "triton":
        _leave_out("KServe", storage_uri=storage_uri)
        return _repository(Path(path), _addition(model, name, python, chosen), version)
    return _cluster(Path(path), _addition(model, name, python, chosen), version, chosen, storage_uri)


def _leave_out(whose: str, **arguments: object) -> None:
    for name, given in arguments.items():
        if given is not None:
            raise InputError(f"`{name}` is for {whose}.", "Leave it out.", code="for-another-target", name=name)


def _require_settings(settings: TritonSettings) -> None:
    require_within("instances", settings.instances, 1, _MOST_INSTANCES)
    require_within("threads", 1 if settings.threads is None else settings.threads, 1, MOST_THREADS)
    require_within("batch", settings.batch, 1, LARGEST_BATCH)
    require_within("delay_us", settings.delay_us, 0, _LONGEST_DELAY)


def _page(
    model: AnyArtifact, path: Path, runtime: Path | str | None, webgpu: bool, data: Path | str | None
) -> Packaged:
    found = web.runtime_in(None if runtime is None else Path(runtime), webgpu)
    artifact = open_artifact(model)
    web.require_for_web(artifact)
    log = ImageLog()
    samples = [] if data is None else web.samples_of(open_source(str(data), "any"), log)
    with new_folder(path) as part:
        web.write_site(part, artifact, found, webgpu, samples)
    files = tuple(file for file in sorted(path.rglob("*")) if file.is_file())
    return Packaged(path, files, None, "onnxruntime-web", None if data is None else log.document())


def _addition(model: AnyArtifact, name: str | None, python: bool, settings: TritonSettings) -> Addition:
    artifact = open_artifact(model)
    named = repository.require_name(artifact.path.stem if name is None else name)
    backend = triton.backend_of(artifact, python, settings.gpu)
    return Addition(named, artifact, backend, triton.config(named, artifact, backend, settings))


def _repository(path: Path, what: Addition, version: int | None) -> Packaged:
    number, files = repository.add(path, what, version)
    return Packaged(path / what.name, tuple(files), number, what.backend)


def _cluster(
    path: Path, what: Addition, version: int | None, settings: TritonSettings, storage_uri: str | None
) -> Packaged:
    """A repository, and beside the model's folder what a cluster needs."""
    if not storage_uri:
        raise InputError(
            "KServe must know where the repository will lie.",
            'Give its address as `storage_uri`: "s3://models/repository", "pvc://volume/repository".',
            code="no-storage",
        )
    if what.backend == "python":
        raise InputError(
            "KServe's image of Triton has no ONNX Runtime for Python.",
            "Leave `python` out: that image has a backend for the file.",
            code="python-for-kserve",
        )
    service = kserve.require_service_name(what.name)
    on_gpu = settings.gpu or what.backend == "tensorrt"
    cpus = None if on_gpu else triton.threads_of(what.artifact, settings) * settings.instances
    files = kserve.files_for(path, service, what.artifact.manifest, storage_uri, cpus)
    done = _repository(path, what, version)
    for file, text in files.items():
        write_text(file, text)
    return Packaged(done.path, (*done.files, *files), done.version, done.backend)
