"""tofe-export demo"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tofe_export.artifacts.commands import command
from tofe_export.cli import console
from tofe_export.cli.bench import show_bench
from tofe_export.cli.images import show_images
from tofe_export.cli.train import run_outputs


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for what it makes.", metavar="DIR")] = Path("demo"),
) -> None:
    """Train a small ToFe on real digits, then export, verify, benchmark and report, on any CPU."""
    from tofe_export.artifacts.file_kinds import Kind
    from tofe_export.artifacts.names import BENCH, MODEL, PAGE, VERIFY
    from tofe_export.artifacts.outputs import Output, require_outputs
    from tofe_export.data.image_log import ImageLog
    from tofe_export.training.progress import training_progress
    from tofe_export.workflows.demo import deploy_demo, train_demo

    kinds = {MODEL: Kind.ONNX, VERIFY: Kind.VERIFY, BENCH: Kind.BENCH, PAGE: Kind.PAGE}
    require_outputs([*run_outputs(out), *(Output(out / name, kind) for name, kind in kinds.items())])
    train = command("train", "--data", "digits", "...", "-o", out)
    console.say(f"$ {train}   (the recipe in tofe_export/training/recipes.py)")
    log = ImageLog()
    with training_progress(console.err) as bar:
        train_demo(out, bar, log)
    with console.progress() as report:
        result = deploy_demo(out, report, lambda command: console.say(f"$ {command}"), log)
    exported, verified = result.export, result.verification
    counts = ", ".join(map(str, exported.keep))
    share = exported.manifest["gmacs"] / exported.manifest["dense_gmacs"]
    show_bench(result.benchmark)
    console.say(f"Keep counts {counts} of {exported.manifest['tokens']} tokens: {share:.1%} of the dense cost")
    console.say(
        f"Held-out accuracy {verified['accuracy']['deployed']:.1%} on {verified['samples']} images; "
        f"the exported model agrees with PyTorch on {verified['top1_agreement']:.1%} of them"
    )
    show_images(log)
    console.say(f"Open {result.page}")
