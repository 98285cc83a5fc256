"""What a run folder holds, whichever parts of it exist yet."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tofe_export.artifacts.manifests import has_manifest, manifest_path, read_manifest, read_manifest_alone
from tofe_export.checkpoints.checkpoint import Checkpoint, load, load_like
from tofe_export.documents.base import read_document
from tofe_export.documents.benchmark import Benchmark
from tofe_export.documents.history import History, Pace, read_history, read_pace
from tofe_export.documents.manifest import OnnxManifest
from tofe_export.documents.verification import (
    ThresholdComparison,
    Verification,
    read_verifications,
)
from tofe_export.errors import InputError
from tofe_export.files.commands import command
from tofe_export.files.names import BENCH, CHECKPOINT, METRICS, MODEL, STEPS, VERIFY
from tofe_export.files.places import is_there
from tofe_export.model.config import ToFeConfig
from tofe_export.training.state import load_state

Step = Literal["train", "pictures", "onnx", "verify", "bench"]


@dataclass(frozen=True)
class RunFolder:
    """The parts of a run; None where a part does not exist.

    Attributes:
        path: the folder.
        pace: how fast training was.
        budget: the cost that training aimed at, as a share of the dense backbone's MACs.
        artifacts: every one that was compared with PyTorch.
        verification: the exported model's, else that of the first artifact.
        manifest: of `model.onnx`.
        notes: sentences about parts that do not fit together.
        outdated: what was compared or timed, or what was exported, is not what lies here now.
    """

    path: Path
    checkpoint: Checkpoint | None
    history: History | None
    pace: Pace | None
    budget: float | None
    artifacts: tuple[Verification, ...]
    verification: Verification | None
    benchmark: Benchmark | None
    manifest: OnnxManifest | None
    notes: tuple[str, ...]
    outdated: bool

    @property
    def commands(self) -> dict[Step, str]:
        """The command that makes each part of the folder, ready to type."""
        at, model, checkpoint = self.path, self.path / MODEL, self.path / CHECKPOINT
        return {
            "train": command("demo", "-o", at),  # in minutes on any CPU
            "pictures": command("report", at, "--images", "6"),
            "onnx": command("onnx", checkpoint, "-o", model),
            "verify": command("verify", model, "--against", checkpoint, "--json", at / VERIFY),
            "bench": command("bench", model, "--json", at / BENCH),
        }

    def command_towards(self, step: Literal["verify", "bench"]) -> str:
        """What leads on to `step`: that, or the export before it; "" without a checkpoint that it needs."""
        exported = is_there(self.path / MODEL) and is_there(manifest_path(self.path / MODEL))
        if exported and (self.checkpoint or step == "bench"):
            return self.commands[step]
        return self.commands["onnx"] if self.checkpoint else ""

    @property
    def threshold(self) -> ThresholdComparison | None:
        """The fixed path against the threshold path."""
        return self.verification.threshold if self.verification else None

    def keep_counts(self) -> tuple[int, ...] | None:
        """Keep counts of the exported model if there is one, else as learned; None when neither says."""
        if self.manifest is not None:
            return self.manifest.keep
        known = self.checkpoint is not None and self.checkpoint.model.stages and self.checkpoint.knows_keep
        return self.checkpoint.keep_counts() if self.checkpoint is not None and known else None


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
    pace, why = _read_pace(path / STEPS)
    verifications = read_verifications(path / VERIFY, "Verify again.") if is_there(path / VERIFY) else None
    timed = read_document(Benchmark, path / BENCH, "Time the model again.") if is_there(path / BENCH) else None
    if not any((checkpoint, history, pace, verifications, timed, manifest)):
        parts = ", ".join((CHECKPOINT, METRICS, STEPS, f"{MODEL}.json", VERIFY, BENCH))
        raise InputError(
            f"{path} holds nothing to report: none of {parts}.", "Train into it first.", code="no-run", path=path
        )
    state = None
    if checkpoint or history:
        with contextlib.suppress(InputError):  # the page does without a state that cannot be read
            state = load_state(path)
    budget = state.recipe.get("tofe", {}).get("budget") if state else None
    if budget is None and checkpoint:
        budget = checkpoint.metrics.get("macs_budget")
    run = RunFolder(
        path=path,
        checkpoint=checkpoint,
        history=history,
        pace=pace,
        budget=budget if isinstance(budget, float) and 0 < budget < 1 else None,
        artifacts=verifications.artifacts if verifications else (),
        verification=verifications.of_model(MODEL) if verifications else None,
        benchmark=timed,
        manifest=manifest,
        notes=(),
        outdated=False,
    )
    outdated = tuple(_outdated(run))
    return replace(
        run,
        manifest=None if checkpoint and not _fits(manifest, checkpoint) else manifest,
        notes=(*notes, *why, *outdated),
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


def _read_pace(path: Path) -> tuple[Pace | None, list[str]]:
    """The log of the steps, and why it cannot be used."""
    if not is_there(path):
        return None, []
    try:
        return read_pace(path), []
    except InputError as error:
        return None, [f"{error.message} How fast training was is omitted."]


def _read_checkpoint(path: Path, manifest: OnnxManifest | None) -> Checkpoint:
    """As the network that was exported of it (for images of another size, say), if it can be had; else as it is."""
    if manifest is not None:
        with contextlib.suppress(InputError):
            alike = load_like(path, ToFeConfig.of(manifest.config), manifest.weights)
            if _fits(manifest, alike):
                return alike
    return load(path)


def _fits(manifest: OnnxManifest | None, checkpoint: Checkpoint) -> bool:
    """Whether both are of the same network."""
    return manifest is None or checkpoint.model.config.document() == manifest.config


def _outdated(run: RunFolder) -> Iterator[str]:
    """Sentences on results about another export under the same name, and on an export of another checkpoint."""
    manifest, verified = run.manifest, run.verification
    if manifest is None:
        return
    if verified is not None and verified.model == MODEL:
        if verified.keep and verified.keep != manifest.keep:
            yield (
                f"{VERIFY} is about an export with keep counts {', '.join(map(str, verified.keep))}; {MODEL} now has "
                f"{', '.join(map(str, manifest.keep))}. Compare again: {run.commands['verify']}"
            )
        elif verified.model_sha256 not in ("", manifest.sha256):  # documents of older versions do not say
            yield f"{VERIFY} is about another {MODEL} than this one. Compare again: {run.commands['verify']}"
    rows = [row for row in run.benchmark.rows if row.name == MODEL] if run.benchmark else []
    if any(not math.isclose(row.gmacs, manifest.gmacs, rel_tol=1e-6) for row in rows):
        yield f"{BENCH} is about an export of another cost than {MODEL} now. Time it again: {run.commands['bench']}"
    if run.checkpoint is None:
        return
    if manifest.source.sha256 != run.checkpoint.file_sha256:
        yield (
            f"{MODEL} was exported from another checkpoint than the {CHECKPOINT} in this folder. "
            f"Export, verify and time it again, beginning with: {run.commands['onnx']}"
        )
    if not _fits(manifest, run.checkpoint):
        yield f"{MODEL} is another network than {CHECKPOINT} holds, so what its manifest says is omitted."
