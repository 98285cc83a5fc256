"""`tofe-export demo`: train, export, verify, benchmark and report, on bundled real images and any CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress

from tofe_export.artifacts.commands import command
from tofe_export.artifacts.files import write_json
from tofe_export.artifacts.names import BENCH, CHECKPOINT, MODEL, STATE, VERIFY
from tofe_export.data.image_log import ImageLog
from tofe_export.errors import CheckFailedError
from tofe_export.report import build_report
from tofe_export.training.recipes import DEMO
from tofe_export.training.trainer import train
from tofe_export.workflows.bench_models import bench_models
from tofe_export.workflows.export_onnx import OnnxOptions, OnnxResult, export_onnx
from tofe_export.workflows.progress import Report, silent
from tofe_export.workflows.verify_model import verify_model

_HELD_OUT = 100_000  # all of them


@dataclass(frozen=True)
class DemoResult:
    """What the demo made: the export, verify.json, bench.json, and the page."""

    export: OnnxResult
    verification: dict[str, Any]
    benchmark: dict[str, Any]
    page: Path


def train_demo(folder: Path, progress: Progress | None = None, log: ImageLog | None = None) -> Path:
    """Trains the recipe `DEMO` into `folder`/ckpt.pth; a run that was stopped there is continued.

    Args:
        folder: made when missing.
        progress: the trainer's progress bar.
        log: told which images were read.
    """
    resume = (folder / STATE).exists()
    return train(DEMO.settings, DEMO.config, folder, resume=resume, progress=progress, log=log)


def deploy_demo(
    folder: Path,
    report: Report = silent,
    announce: Callable[[str], None] = lambda command: None,
    log: ImageLog | None = None,
) -> DemoResult:
    """From `folder`/ckpt.pth to model.onnx, model.onnx.json, verify.json, bench.json and report.html.

    Args:
        folder: from `train_demo`.
        report: progress of the steps.
        announce: called with the command that each step stands for.
        log: told which images were read.

    Raises:
        CheckFailedError: the exported model does not agree with PyTorch.
    """
    log = ImageLog() if log is None else log
    checkpoint, model = folder / CHECKPOINT, folder / MODEL
    announce(command("onnx", checkpoint, "-o", model))
    exported = export_onnx(checkpoint, model, OnnxOptions(), report)
    announce(command("verify", model, "--against", checkpoint, "--json", folder / VERIFY))
    verified = verify_model(model, checkpoint, samples=_HELD_OUT, report=report)
    verification = verified.document
    for part in (exported.images, verified.images):
        log.merge(part)
    write_json(folder / VERIFY, verification)
    if not verification["passed"]:
        raise CheckFailedError(" ".join(verification["failures"]), f"See {folder / VERIFY}.")
    announce(command("bench", model, "--json", folder / BENCH))
    benchmark = bench_models([model], report=report)
    write_json(folder / BENCH, benchmark)
    announce(command("report", folder))
    return DemoResult(exported, verification, benchmark, build_report(folder, log=log))
