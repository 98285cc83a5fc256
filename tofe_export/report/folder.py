"""What a run folder holds, whichever parts of it exist yet."""

from __future__ import annotations

import contextlib
import copy
import math
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer

from tofe_export.artifacts.commands import command
from tofe_export.artifacts.files import read_json, sha256
from tofe_export.artifacts.manifest import SCHEMA, has_manifest, manifest_path, read_manifest
from tofe_export.artifacts.manifest_schema import check_manifest
from tofe_export.artifacts.names import BENCH, CHECKPOINT, METRICS, MODEL, STATE, VERIFY, is_text
from tofe_export.artifacts.places import is_there
from tofe_export.checkpoints.checkpoint import Checkpoint, load, load_like
from tofe_export.checkpoints.weights import require_floats, require_plain
from tofe_export.errors import InputError
from tofe_export.model.config import ToFeConfig
from tofe_export.report.documents import Benchmark, read_benchmark
from tofe_export.report.history import History, read_history
from tofe_export.report.verification import Evidence, Verification, read_verification


@dataclass(frozen=True)
class Commands:
    """The command that makes each part, ready to type."""

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
        """Command that exports its checkpoint."""
        return command("onnx", self.folder / CHECKPOINT, "-o", self.folder / MODEL)

    @property
    def verify(self) -> str:
        """Command that compares the export with it."""
        at = self.folder
        return command("verify", at / MODEL, "--against", at / CHECKPOINT, "--json", at / VERIFY)

    @property
    def bench(self) -> str:
        """Command that times the export."""
        return command("bench", self.folder / MODEL, "--json", self.folder / BENCH)


@dataclass
class RunFolder:
    """The parts that were found; None where a part does not exist.

    Attributes:
        path: the folder.
        evidence: every artefact that was verified.
        manifest: of `model.onnx`.
        teacher: the dense teacher that training kept, where it fits the checkpoint.
        budget: what training was asked for, as a share of the dense backbone's MACs.
        notes: sentences about parts that do not fit together.
        outdated: what was compared or timed, or what was exported, is not what lies here now.
    """

    path: Path
    checkpoint: Checkpoint | None = None
    history: History | None = None
    evidence: Evidence | None = None
    benchmark: Benchmark | None = None
    manifest: Mapping[str, Any] | None = None
    budget: float | None = None
    teacher: VisionTransformer | None = None
    notes: list[str] = field(default_factory=list)
    outdated: bool = False

    @property
    def commands(self) -> Commands:
        """How to make what is missing."""
        return Commands(self.path)

    def command_before(self, command: str) -> str:
        """`command`, which needs an export, or what has to be typed first; "" where nothing here would do."""
        exported = (self.path / MODEL).exists() and manifest_path(self.path / MODEL).exists()
        if self.checkpoint is None:
            return command if exported and command == self.commands.bench else ""
        return command if exported else self.commands.onnx

    @property
    def verification(self) -> Verification | None:
        """The exported model's, else that of the first artefact."""
        return self.evidence.of(MODEL) if self.evidence else None

    def keep_counts(self) -> tuple[int, ...] | None:
        """Of the exported model if there is one, else as learned; None when neither says."""
        if self.manifest is not None:
            return tuple(int(count) for count in self.manifest["keep"])
        if self.checkpoint is not None and self.checkpoint.keep_ratios:
            return self.checkpoint.keep_counts()
        return None


def read_folder(path: Path) -> RunFolder:
    """Reads every part that is there.

    Raises:
        InputError: no such folder, nothing in it that a report could show, or a part that is damaged.
    """
    if not is_there(path):
        raise InputError(f"There is no folder {path}.", f"Make a run first: {Commands(path).train}")
    if not path.is_dir():
        raise InputError(f"{path} is a file, not a folder.", f"Type: {command('report', path.parent)}")
    found, commands = RunFolder(path), Commands(path)
    _add_manifest(found)
    if is_there(path / CHECKPOINT):
        found.checkpoint = _checkpoint(path / CHECKPOINT, found.manifest)
        found.teacher = _teacher(path / STATE, found.checkpoint)
    if is_there(path / METRICS):
        found.history = read_history(path / METRICS)
        found.budget = found.history.budget or _budget(path / STATE)
    if is_there(path / VERIFY):
        found.evidence = read_verification(path / VERIFY, commands.verify)
    if is_there(path / BENCH):
        found.benchmark = read_benchmark(path / BENCH, commands.bench)
    if not any((found.checkpoint, found.history, found.evidence, found.benchmark, found.manifest)):
        parts = ", ".join((CHECKPOINT, METRICS, f"{MODEL}.json", VERIFY, BENCH))
        raise InputError(f"{path} holds nothing to report: none of {parts}.", f"Make a run first: {commands.train}")
    _compare_parts(found)
    return found


def _checkpoint(path: Path, manifest: Mapping[str, Any] | None) -> Checkpoint:
    """As the network that was exported of it (for images of another size, say), if it can be had; else as it is."""
    if manifest is not None:
        with contextlib.suppress(InputError):
            alike = load_like(path, ToFeConfig.from_dict(manifest.get("config") or {}))
            if alike.model.config.to_dict() == manifest.get("config"):
                return alike
    return load(path)


def _add_manifest(found: RunFolder) -> None:
    artefact = found.path / MODEL
    beside = manifest_path(artefact)
    if not has_manifest(artefact):
        return
    try:
        document = read_manifest(artefact) if is_there(artefact) else _alone(beside)
    except InputError as error:  # the rest of the folder is still worth showing
        found.notes.append(f"{error.message} What it says is left out.")
        return
    found.manifest = document


def _alone(path: Path) -> dict[str, Any]:
    """The manifest of a model that is not there."""
    document = read_json(path)
    if document.get("schema") != SCHEMA:
        raise InputError(f"{path.name} is not a manifest of this program.")
    check_manifest(document, path, Path(MODEL).suffix)
    return document


def _compare_parts(found: RunFolder) -> None:
    """Evidence about another model than the one shown must not pass for evidence about this one."""
    before = len(found.notes)
    _compare_evidence(found)
    _compare_checkpoint(found)
    found.outdated = len(found.notes) > before


def _compare_checkpoint(found: RunFolder) -> None:
    if found.manifest is None or found.checkpoint is None:
        return
    if (found.manifest.get("source") or {}).get("sha256") != sha256(found.path / CHECKPOINT):
        found.notes.append(
            f"{MODEL} was exported from another checkpoint than the {CHECKPOINT} in this folder. "
            f"Export, verify and time again, beginning with: {found.commands.onnx}"
        )
    if found.manifest.get("config") != found.checkpoint.model.config.to_dict():
        found.notes.append(
            f"{MODEL} is another network than {CHECKPOINT} holds, so what its manifest says is left out."
        )
        found.manifest = None


def _compare_evidence(found: RunFolder) -> None:
    """The same file name may hold a newer export: its keep counts and its cost tell."""
    if found.manifest is None:
        return
    keep, verified = list(found.manifest["keep"]), found.verification
    known = {"", found.manifest["sha256"]}  # documents of an older version do not say
    if verified is not None and verified.model == MODEL and verified.keep and list(verified.keep) != keep:
        found.notes.append(
            f"{VERIFY} is about an export with keep counts {', '.join(map(str, verified.keep))}; {MODEL} now has "
            f"{', '.join(map(str, keep))}. Compare again: {found.commands.verify}"
        )
    elif verified is not None and verified.model == MODEL and verified.model_sha256 not in known:
        found.notes.append(f"{VERIFY} is about another {MODEL} than this one. Compare again: {found.commands.verify}")
    cost = found.manifest.get("gmacs")
    rows = [row for row in found.benchmark.rows if row.name == MODEL] if found.benchmark else []
    if isinstance(cost, float) and any(not math.isclose(row.gmacs, cost, rel_tol=1e-6) for row in rows):
        found.notes.append(
            f"{BENCH} is about an export of another cost than {MODEL} now. Time again: {found.commands.bench}"
        )


def _budget(path: Path) -> float | None:
    """What the trainer's saved state says, or None; only a number is taken from it."""
    settings = _state(path).get("settings")
    budget = settings.get("budget") if isinstance(settings, Mapping) else None
    return float(budget) if isinstance(budget, float) and 0 < budget < 1 else None


def _teacher(path: Path, checkpoint: Checkpoint) -> VisionTransformer | None:
    """The dense teacher in the trainer's saved state, or None where there is none that fits."""
    weights = _state(path).get("teacher")
    if not isinstance(weights, Mapping) or not weights:
        return None
    teacher = copy.deepcopy(checkpoint.model.vit)
    plain = {key: value for key, value in weights.items() if isinstance(value, torch.Tensor)}
    try:
        require_plain(plain, path)
        require_floats(teacher.state_dict(), plain, path)
        teacher.load_state_dict(plain)
    except (InputError, RuntimeError, TypeError, AttributeError):  # of another network
        return None
    return teacher.eval()


def _state(path: Path) -> Mapping[str, Any]:
    """The trainer's saved state, or nothing where there is none that can be read."""
    if not path.exists():
        return {}
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=is_text(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError):
        return {}
    return state if isinstance(state, Mapping) else {}
