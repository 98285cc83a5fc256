"""Train, export, verify, bench and report, on bundled real images and any CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tofe_export.api.bench import bench
from tofe_export.api.export import export
from tofe_export.api.report import report
from tofe_export.api.verify import verify
from tofe_export.artifacts.artifact import Artifact
from tofe_export.checkpoints.checkpoint import load
from tofe_export.data.image_log import ImageLog
from tofe_export.documents.benchmark import Benchmark
from tofe_export.documents.training_recipe import TrainingRecipe
from tofe_export.documents.verification import Verifications
from tofe_export.errors import CheckFailedError
from tofe_export.files.names import BENCH, CHECKPOINT, MODEL, STATE, VERIFY
from tofe_export.files.writing import write_text
from tofe_export.progress import Progress, silent
from tofe_export.training.loop import Watch, unwatched
from tofe_export.training.recipe import read_recipe
from tofe_export.training.run import RunOptions
from tofe_export.training.trainer import train

Step = Literal["export", "verify", "bench", "report"]
REARRANGE: Literal["elide"] = "elide"
"""The form that is exported: on a network this small, putting tokens back costs 5% of the time."""
RECIPE: TrainingRecipe | str = "digits"
_HELD_OUT = 100_000  # all of them


@dataclass(frozen=True)
class DemoResult:
    """What the demo leaves in its folder; `page` is the report."""

    artifact: Artifact
    verification: Verifications
    benchmark: Benchmark
    page: Path


def demo(folder: Path | str = "demo", *, progress: Progress = silent) -> DemoResult:
    """Trains a small ToFe on real digits, then exports, verifies, times and reports it.

    Args:
        folder: where everything is written; created when missing. A training that was stopped there is continued.
        progress: called with what is being done, steps done, steps in all.

    Raises:
        CheckFailedError: the exported model does not agree with PyTorch.
    """
    train_demo(Path(folder), progress)
    return deploy_demo(Path(folder), progress)


def train_demo(folder: Path, progress: Progress, watch: Watch = unwatched, log: ImageLog | None = None) -> None:
    """Trains the demo's network into `folder`/ckpt.pth; see `trainer.train` and `demo`."""
    resume = (folder / STATE).exists()
    options = RunOptions("digits", device="cpu")
    train(read_recipe(RECIPE), options, folder, resume=resume, progress=progress, watch=watch, log=log)


def deploy_demo(folder: Path, progress: Progress, announce: Callable[[Step], None] = lambda step: None) -> DemoResult:
    """From `folder`/ckpt.pth to model.onnx, model.onnx.json, verify.json, bench.json and report.html.

    `announce` is called with each step before it begins. Raises as `demo` does.
    """
    checkpoint = load(folder / CHECKPOINT)
    announce("export")
    artifact = export(checkpoint, folder / MODEL, rearrange=REARRANGE, progress=progress)
    announce("verify")
    verification = verify(artifact, against=checkpoint, samples=_HELD_OUT, progress=progress)
    write_text(folder / VERIFY, verification.to_json())
    if not verification.passed:
        raise CheckFailedError(
            " ".join(verification.failures), f"See {folder / VERIFY}.", code="demo-disagrees", path=folder / VERIFY
        )
    announce("bench")
    benchmark = bench(artifact, progress=progress)
    write_text(folder / BENCH, benchmark.to_json())
    announce("report")
    return DemoResult(artifact, verification, benchmark, report(folder))
