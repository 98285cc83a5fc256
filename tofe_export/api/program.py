"""From an ONNX file and its checkpoint to a program for phones and small boards."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tofe_export import __version__
from tofe_export.api.load import AnyArtifact, Source, open_onnx, path_of
from tofe_export.artifacts.artifact import Artifact, open_program
from tofe_export.artifacts.file_kinds import Kind
from tofe_export.artifacts.outputs import Output, beside, require_outputs
from tofe_export.artifacts.sets import atomic_artifact
from tofe_export.checkpoints.checkpoint import Checkpoint, load_like
from tofe_export.checkpoints.hub import pinned
from tofe_export.data.image_log import ImageLog
from tofe_export.data.images import batches
from tofe_export.data.sources import images_like_training
from tofe_export.documents.images import ImagesRead
from tofe_export.documents.machine import describe_versions
from tofe_export.documents.manifest import FileIdentity, Manifest, ProgramManifest
from tofe_export.documents.verification import Agreement
from tofe_export.edge.executorch import to_executorch
from tofe_export.edge.litert import to_litert
from tofe_export.errors import CheckFailedError, InputError, TofeError, brief
from tofe_export.files.names import expanded, readable
from tofe_export.graph.deployable import Deployable
from tofe_export.model.config import ToFeConfig
from tofe_export.model.fixed_path import FixedPath
from tofe_export.parity.provenance import check_preprocessing, check_weights
from tofe_export.parity.side_by_side import compare
from tofe_export.parity.tolerances import tolerance_of
from tofe_export.precision.calibrated import require_float32
from tofe_export.progress import Progress, silent, tracked

ProgramRuntime = Literal["executorch", "litert"]
_PARITY_IMAGES = 16
_MADE_BY: dict[ProgramRuntime, Callable[[Deployable, bool], bytes]] = {
    "executorch": to_executorch,
    "litert": to_litert,
}
SUFFIXES: dict[ProgramRuntime, Literal[".pte", ".tflite"]] = {"executorch": ".pte", "litert": ".tflite"}


@dataclass(frozen=True)
class Program(Artifact):
    """A program that was just made.

    Attributes:
        parity: how it agreed with PyTorch on a few images.
        images: which images were read and omitted.
    """

    manifest: ProgramManifest
    parity: Agreement
    images: ImagesRead


def program(
    model: AnyArtifact,
    path: Path | str | None = None,
    *,
    checkpoint: Source,
    runtime: ProgramRuntime = "executorch",
    int8: bool = False,
    taps: bool = False,
    data: str | Path | None = None,
    progress: Progress = silent,
) -> Program:
    """Makes a program for phones of the network that an ONNX file holds, one image at a time.

    ExecuTorch and LiteRT convert PyTorch, not ONNX: the network is traced once more from its checkpoint, with the keep
    counts, form and outputs that the ONNX file's manifest says. The program appears only after it was run here and
    compared with PyTorch; in INT8 what that found is reported, and `verify` judges it.

    Args:
        model: the ONNX file as it was exported, in float32.
        path: the program, beside which its manifest is written; None means `model.pte` or `model.tflite` beside it.
        checkpoint: what the ONNX file was exported from.
        runtime: "executorch", with its products in XNNPACK, or "litert".
        int8: weights in 8 bits, one scale per output channel, of linear layers and in ExecuTorch of the patch embedding
            too; what they are multiplied with is quantized as it comes.
        taps: per-stage scores, perm and tokens are outputs too, for verification stage by stage.
        data: images of the parity check, as in `export`.
        progress: called with what is being done, steps done, steps in all.

    Raises:
        InputError: see `open_onnx`; a file that is not in float32, another checkpoint, or a path that must not or
            cannot be written.
        CheckFailedError: the program does not agree with PyTorch.
        MissingError: the runtime is not installed, or the disk is full.
    """
    target = _target(model, path, runtime)
    require_outputs([Output(target, Kind.PROGRAM)], [path_of(model), _file_of(checkpoint)])
    source = open_onnx(model)
    known = source.manifest
    require_float32(source.graph, known.precision, str(source.path))
    loaded = _same_network(checkpoint, source)
    images, log = images_like_training(loaded.data, None if data is None else str(data)), ImageLog()
    network = Deployable(loaded.model, known.keep, known.rearrange == "plugin", known.outputs, taps)
    task = f"Converting for {runtime}"
    progress(task, 0, 1)
    content = _converted(network, runtime, int8)
    progress(task, 1, 1)
    manifest = _manifest(source, loaded, network, runtime, int8)
    with atomic_artifact(target) as draft:
        draft.path.write_bytes(content)
        loop = batches(images, loaded.preprocessing, 1, limit=_PARITY_IMAGES, log=log)
        loop = tracked(loop, "Comparing with PyTorch", min(_PARITY_IMAGES, len(images)), progress)
        fixed, tolerance = FixedPath(known.keep, known.rearrange == "plugin"), tolerance_of(manifest.precision, {})
        runner = open_program(draft.path, manifest)
        comparison = compare(loaded.model, runner, fixed, loop, manifest.precision, False, tolerance)
        if comparison.failures and not int8:
            raise CheckFailedError(
                f"The program does not agree with PyTorch, so it was not written: {' '.join(comparison.failures)}",
                "Try other images (`data`); if it stays, please report this model.",
                code="parity",
            )
        draft.manifest = manifest
    assert isinstance(draft.manifest, ProgramManifest)
    return Program(target, draft.manifest, comparison.agreement(), log.document())


def _converted(network: Deployable, runtime: ProgramRuntime, int8: bool) -> bytes:
    try:
        return _MADE_BY[runtime](network, int8)
    except (TofeError, KeyboardInterrupt):
        raise
    except Exception as error:  # of any of the libraries behind it
        raise CheckFailedError(
            f"{runtime} does not convert this network. It says: {brief(str(error).strip() or type(error).__name__)}",
            "Take the other runtime, or run the ONNX file itself on the device.",
            code="not-converted",
            runtime=runtime,
        ) from error


def _target(model: AnyArtifact, path: Path | str | None, runtime: ProgramRuntime) -> Path:
    if runtime not in SUFFIXES:
        raise InputError(f"`runtime` is {runtime!r}.", "Give executorch or litert.", code="target-unknown")
    suffix = SUFFIXES[runtime]
    target = beside(path_of(model), suffix) if path is None else Path(path)
    if target.suffix != suffix:
        raise InputError(
            f"{target} does not end in {suffix}, as programs for {runtime} do.",
            f"Name it {target.with_suffix(suffix) if target.name else f'model{suffix}'}.",
            code="program-name",
            path=target,
        )
    return target


def _file_of(checkpoint: Source) -> Path | None:
    return checkpoint.path if isinstance(checkpoint, Checkpoint) else expanded(os.fspath(checkpoint))


def _same_network(checkpoint: Source, source: Artifact) -> Checkpoint:
    """The checkpoint as the network that the ONNX file holds; InputError where it is another one."""
    manifest: Manifest = source.manifest
    config = ToFeConfig.of(manifest.config)
    given = checkpoint if isinstance(checkpoint, Checkpoint) else pinned(expanded(os.fspath(checkpoint)), manifest.hub)
    loaded = load_like(given, config, manifest.weights)
    checks = (check_weights(manifest, loaded), check_preprocessing(manifest, loaded))
    failed = [check.message for check in checks if check.passed is False]
    # A manifest of an older version knows the file alone.
    other_file = manifest.weights_sha256 is None and manifest.origin.sha256 != loaded.file_sha256
    if config != loaded.model.config or failed or other_file:
        raise InputError(
            f"{source.path} was not exported from this checkpoint. {' '.join(failed)}".rstrip(),
            f"Name {manifest.origin.file}, or export this one first.",
            code="another-network",
            path=source.path,
        )
    return loaded


def _manifest(
    source: Artifact, checkpoint: Checkpoint, network: Deployable, runtime: ProgramRuntime, int8: bool
) -> ProgramManifest:
    known = source.manifest
    changes = {
        "checkpoint": known.origin,
        "weights_sha256": checkpoint.weights_sha256,
        "versions": {**known.versions, **describe_versions(), "tofe_export": __version__},
        **({"precision": "int8", "around": "fp32"} if int8 else {}),
    }
    return ProgramManifest(
        **(known.shared() | changes),
        kind="pte" if runtime == "executorch" else "tflite",
        source=FileIdentity(file=readable(source.path.name), sha256=known.sha256),
        returns=tuple(network.names),
        taps=network.taps,
    )
