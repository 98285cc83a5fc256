"""tofe-export demo"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from tofe_export.cli import console
from tofe_export.cli.bench import show_bench
from tofe_export.files.commands import command
from tofe_export.files.names import BENCH, CHECKPOINT, MODEL, PAGE, VERIFY


def demo(
    out: Annotated[Path, Option("--output", "-o", "--out", help="Folder for its files.", metavar="DIR")] = Path("demo"),
) -> None:
    """Train a small ToFe on real digits, then export, verify, benchmark and report, on any CPU."""
    from tofe_export.api.demo import REARRANGE, deploy_demo, train_demo
    from tofe_export.api.train import run_outputs
    from tofe_export.artifacts.file_kinds import Kind
    from tofe_export.artifacts.outputs import Output, require_outputs
    from tofe_export.data.image_log import ImageLog
    from tofe_export.page.headline import headline

    kinds = {MODEL: Kind.ONNX, VERIFY: Kind.VERIFY, BENCH: Kind.BENCH, PAGE: Kind.PAGE}
    require_outputs([*run_outputs(out), *(Output(out / name, kind) for name, kind in kinds.items())])
    console.say(f"$ {command('train', '--data', 'digits', '--device', 'cpu', '-o', out)}")
    log = ImageLog()
    with console.training_progress() as (progress, watch):
        train_demo(out, progress, watch, log)
    checkpoint, model = out / CHECKPOINT, out / MODEL
    words: dict[str, tuple[str | Path, ...]] = {
        "export": ("onnx", checkpoint, "--rearrange", REARRANGE, "-o", model),
        "verify": ("verify", model, "--against", checkpoint, "--json", out / VERIFY),
        "bench": ("bench", model, "--json", out / BENCH),
        "report": ("report", out),
    }
    with console.progress() as progress:
        result = deploy_demo(out, progress, lambda step: console.say(f"$ {command(*words[step])}"))
    show_bench(result.benchmark)
    manifest = result.artifact.manifest
    counts, share = ", ".join(map(str, manifest.keep)), manifest.gmacs / manifest.dense_gmacs
    console.say(f"Keep counts {counts} of {manifest.tokens} tokens: {share:.1%} of the dense cost")
    for one in result.verification.artifacts:
        if one.accuracy is not None and one.top1_agreement is not None:
            console.say(
                f"Held-out accuracy {one.accuracy.deployed:.1%} on {one.samples} images; "
                f"the exported model agrees with PyTorch on {one.top1_agreement:.1%} of them"
            )
    console.show_images(log.document())
    console.say(headline(result.verification.artifacts, result.benchmark)[0])
    console.say(f"Open {result.page}")
    _show_next(out)


def _show_next(out: Path) -> None:
    """What to do after the demo: what most users want, in the folder that they chose."""
    faster = command("optimize", out / MODEL, "--for", "onnxruntime")
    smaller = command("quantize", out / MODEL, "--recipe", "digits", "-o", out / "int8.onnx")
    yours = command("train", "--data", "IMAGES", "--backbone", "deit_small_patch16_224", "--pretrained", "-o", "RUN")
    console.say("Next:")
    console.say(f"  {faster}   # the same network in fewer nodes; then time both with bench")
    console.say(f"  {smaller}   # 8 bits, and whether they pay")
    console.say(f"  {yours}   # your own images")
