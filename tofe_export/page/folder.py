"""What a run folder holds, whichever parts of it exist yet."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from timm.models.vision_transformer import VisionTransformer

from tofe_export.artifacts.manifests import has_manifest, manifest_path, read_manifest, read_manifest_alone
from tofe_export.checkpoints.checkpoint import Checkpoint, load, load_like
from tofe_export.checkpoints.weights import require_floats, require_plain
from tofe_export.documents.base import read_document
from tofe_export.documents.benchmark import Benchmark
from tofe_export.documents.history import History, read_history
from tofe_export.documents.manifest import OnnxManifest
from tofe_export.documents.verification import Verification, Verifications, read_verifications
from tofe_export.errors import InputError
from tofe_export.files.commands import command
from tofe_export.files.names import BENCH, CHECKPOINT, METRICS, MODEL, STATE, VERIFY
from tofe_export.files.places import is_there
from tofe_export.files.reading import sha256
from tofe_export.model.config import ToFeConfig
from tofe_export.training.state import RunState, load_state


@dataclass(frozen=True)
class Commands:
    """The command that makes each part of a folder, ready to type."""

    folder: Path

    @property
    def train(self) -> str:
        """Command that fills the folder, in minutes on any CPU."""
        return command("demo", "-o", self.folder)

    @property
    def pictures(self) -> str:
        """Command that writes the page with pictures."""
        return command("report", self.folder, "--images", "6")

    @property
    def onnx(self) -> str:
        """Command that exports the checkpoint."""
        return command("onnx", self.folder / CHECKPOINT, "-o", self.folder / MODEL)

    @property
    def verify(self) -> str:
        """Command that compares the export with the checkpoint."""
        at = self.folder
        return command("verify", at / MODEL, "--against", at / CHECKPOINT, "--json", at / VERIFY)

    @property
    def bench(self) -> str:
        """Command that times the export."""
        return command("bench", self.folder / MODEL, "--json", self.folder / BENCH)


@dataclass(frozen=True)
class RunFolder:
    """The parts of a run; None where a part does not exist.

    Attributes:
        path: the folder.
        teacher: the dense teacher that training kept, where it fits the checkpoint.
        budget: the cost that training aimed at, as a share of the dense backbone's MACs.
        verifications: every artifact that was compared with PyTorch.
        manifest: of `model.onnx`.
        notes: sentences about parts that do not fit together.
        outdated: what was compared or timed, or what was exported, is not what lies here now.
    """

    path: Path
    checkpoint: Checkpoint | None
    teacher: VisionTransformer | None
    history: History | None
    budget: float | None
    verifications: Verifications | None
    benchmark: Benchmark | None
    manifest: OnnxManifest | None
    notes: tuple[str, ...]
    outdated: bool

    @property
    def commands(self) -> Commands:
        """How to make what is missing."""
        return Commands(self.path)

    @property
    def exported(self) -> bool:
        """Whether the model and its manifest are here."""
        return is_there(self.path / MODEL) and is_there(manifest_path(self.path / MODEL))

    @property
    def verify_command(self) -> str:
        """What leads on to a comparison: that, or the export before it; "" without a checkpoint to compare with."""
        if self.checkpoint is None:
            return ""
        return self.commands.verify if self.exported else self.commands.onnx

    @property
    def bench_command(self) -> str:
        """What leads on to a benchmark: that, or the export before it; "" without a checkpoint to export."""
        return self.commands.bench if self.exported else self.verify_command

    @property
    def verification(self) -> Verification | None:
        """The exported model's, else that of the first artifact."""
        return self.verifications.of_model(MODEL) if self.verifications else None

    def keep_counts(self) -> tuple[int, ...] | None:
        """Keep counts of the exported model if there is one, else as learned; None when neither says."""
        if self.manifest is not None:
            return self.manifest.keep
        if self.checkpoint is not None and self.checkpoint.keep_ratios:
            return self.checkpoint.keep_counts()
        return None


def read_folder(path: Path) -> RunFolder:
    """Reads every part that is there.

    Raises:
        InputError: no such folder, nothing in it that a report could show, or a part that is damaged.
    """
    if not is_there(path):
        raise InputError(f"There is no folder {path}.", "Train into it first.", code="no-run", path=path)
    if not path.is_dir():
        raise InputError(f"{path} is a file, not a folder.", "Name its folder.", code="run-not-a-folder", path=path)
    manifest, notes = _read_manifest(path / MODEL)
    checkpoint = _read_checkpoint(path / CHECKPOINT, manifest) if is_there(path / CHECKPOINT) else None
    history = read_history(path / METRICS) if is_there(path / METRICS) else None
    verifications = read_verifications(path / VERIFY, "Verify again.") if is_there(path / VERIFY) else None
    timed = read_document(Benchmark, path / BENCH, "Time the model again.") if is_there(path / BENCH) else None
    if not any((checkpoint, history, verifications, timed, manifest)):
        parts = ", ".join((CHECKPOINT, METRICS, f"{MODEL}.json", VERIFY, BENCH))
        raise InputError(
            f"{path} holds nothing to report: none of {parts}.", "Train into it first.", code="no-run", path=path
        )
    state = _read_state(path) if checkpoint or history else None
    run = RunFolder(
        path=path,
        checkpoint=checkpoint,
        teacher=_teacher(state, checkpoint, path / STATE) if state and checkpoint else None,
        history=history,
        budget=_budget(state) if state and history else None,
        verifications=verifications,
        benchmark=timed,
        manifest=manifest,
        notes=(),
        outdated=False,
    )
    outdated = [*_outdated_documents(run), *_outdated_export(run)]
    return replace(
        run,
        manifest=None if checkpoint and not _fits(manifest, checkpoint) else manifest,
        notes=(*notes, *outdated),
        outdated=bool(outdated),
    )


def _read_manifest(artifact: Path) -> tuple[OnnxManifest | None, list[str]]:
    """The manifest of the export, and why it cannot be used: the rest of the folder is still worth showing."""
    if not has_manifest(artifact):
        return None, []
    try:
        there = is_there(artifact)
        manifest = read_manifest(artifact) if there else read_manifest_alone(manifest_path(artifact))
    except InputError as error:
        return None, [f"{error.message} What it says is omitted."]
    return manifest if isinstance(manifest, OnnxManifest) else None, []


def _read_checkpoint(path: Path, manifest: OnnxManifest | None) -> Checkpoint:
    """As the network that was exported of it (for images of another size, say), if it can be had; else as it is."""
    if manifest is not None:
        with contextlib.suppress(InputError):
            alike = load_like(path, ToFeConfig.of(manifest.config))
            if _fits(manifest, alike):
                return alike
    return load(path)


def _fits(manifest: OnnxManifest | None, checkpoint: Checkpoint) -> bool:
    """Whether both are of the same network."""
    return manifest is None or checkpoint.model.config.document() == manifest.config


def _outdated_export(run: RunFolder) -> Iterator[str]:
    """Sentences on an export of another checkpoint than the one that is shown."""
    if run.manifest is None or run.checkpoint is None:
        return
    if run.manifest.source.sha256 != sha256(run.path / CHECKPOINT):
        yield (
            f"{MODEL} was exported from another checkpoint than the {CHECKPOINT} in this folder. "
            f"Export, verify and time it again, beginning with: {run.commands.onnx}"
        )
    if not _fits(run.manifest, run.checkpoint):
        yield f"{MODEL} is another network than {CHECKPOINT} holds, so what its manifest says is omitted."


def _outdated_documents(run: RunFolder) -> Iterator[str]:
    """Sentences on results about another model: the same file name may hold a newer export."""
    if run.manifest is None:
        return
    keep, verified = run.manifest.keep, run.verification
    if verified is not None and verified.model == MODEL:
        if verified.keep and verified.keep != keep:
            yield (
                f"{VERIFY} is about an export with keep counts {', '.join(map(str, verified.keep))}; {MODEL} now has "
                f"{', '.join(map(str, keep))}. Compare again: {run.commands.verify}"
            )
        elif verified.model_sha256 not in ("", run.manifest.sha256):  # documents of older versions do not say
            yield f"{VERIFY} is about another {MODEL} than this one. Compare again: {run.commands.verify}"
    rows = [row for row in run.benchmark.rows if row.name == MODEL] if run.benchmark else []
    if any(not math.isclose(row.gmacs, run.manifest.gmacs, rel_tol=1e-6) for row in rows):
        yield f"{BENCH} is about an export of another cost than {MODEL} now. Time it again: {run.commands.bench}"


def _read_state(folder: Path) -> RunState | None:
    """The trainer's saved state, or None where there is none that can be read."""
    with contextlib.suppress(InputError):
        return load_state(folder)
    return None


def _budget(state: RunState) -> float | None:
    budget = state.settings.get("budget") if isinstance(state.settings, dict) else None
    return float(budget) if isinstance(budget, float) and 0 < budget < 1 else None


def _teacher(state: RunState, checkpoint: Checkpoint, path: Path) -> VisionTransformer | None:
    """The dense teacher that training saved, or None where there is none that fits."""
    if not isinstance(state.teacher, dict) or not state.teacher:
        return None
    teacher = copy.deepcopy(checkpoint.model.vit)
    plain = {key: value for key, value in state.teacher.items() if isinstance(value, torch.Tensor)}
    try:
        require_plain(plain, path)
        require_floats(teacher.state_dict(), plain, path)
        teacher.load_state_dict(plain)
    except (InputError, RuntimeError, TypeError, AttributeError):  # of another network
        return None
    return teacher.eval()
