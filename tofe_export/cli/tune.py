"""tofe-export tune"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Exit, Option

from tofe_export.bounds import LARGEST_BATCH, MOST_IMAGES, MOST_PROCESSES, MOST_ROUNDS, MOST_THREADS
from tofe_export.cli import console, hints
from tofe_export.errors import TofeError
from tofe_export.files.commands import command

if TYPE_CHECKING:
    from tofe_export.documents.tuning import TunedCounts, Tuning

_COLUMNS = ("keep counts", "MACs", "predicted ms", "p50 ms", "speed-up", "95% interval", "same class", "accuracy", "")


def tune(
    checkpoint: Annotated[Path, Argument(help="Checkpoint with stages (.pth or .safetensors).", metavar="CKPT")],
    output: Annotated[
        Path, Option("--output", "-o", help="Result to write (.json), and a picture beside it (.png).", metavar="FILE")
    ] = Path("tune.json"),
    latency_ms: Annotated[float | None, Option(help="Goal: the latency of a call.", metavar="MS")] = None,
    speedup: Annotated[
        float | None, Option(help="Goal: how many times faster than the dense backbone in the same form.", metavar="X")
    ] = None,
    macs: Annotated[float | None, Option(help="Goal: share of the dense MACs.", metavar="SHARE")] = None,
    target: Annotated[Literal["onnxruntime", "openvino", "any"], Option("--for", help="The runtime.")] = "onnxruntime",
    batch: Annotated[int, Option(help="Images of a call.", min=1, max=LARGEST_BATCH)] = 1,
    data: Annotated[
        str | None, Option(help="Images to judge by: 'digits', 'photos' or a folder; default: as it was trained.")
    ] = None,
    samples: Annotated[int, Option(help="At most this many of them.", min=1, max=MOST_IMAGES)] = 256,
    rounds: Annotated[int, Option(help="Rounds of hot blocks in each process.", min=1, max=MOST_ROUNDS)] = 8,
    processes: Annotated[
        int, Option(help="Fresh processes; the interval is over them.", min=1, max=MOST_PROCESSES)
    ] = 3,
    threads: Annotated[
        int | None, Option(help="Threads; default: every processor of this process.", min=1, max=MOST_THREADS)
    ] = None,
    keep_rate: hints.KeepRate = None,
    selector: hints.Selector = None,
    fuse_token: hints.FuseToken = None,
    stages: hints.Stages = None,
    backbone: hints.Backbone = None,
    backbone_args: hints.BackboneArgs = "",
    img_size: hints.ImageSize = None,
    weights: hints.Weights = "auto",
) -> None:
    """Find keep counts that meet a goal on this machine. A run that was stopped goes on with the same command."""
    from tofe_export.api.tune import require_place
    from tofe_export.api.tune import tune as tune_checkpoint
    from tofe_export.artifacts.file_kinds import Kind
    from tofe_export.artifacts.outputs import Output, require_outputs
    from tofe_export.checkpoints.checkpoint import load
    from tofe_export.data.sources import require_unambiguous

    require_unambiguous(data)
    require_place(output, checkpoint)
    picture = output.with_suffix(".png")
    require_outputs([Output(picture, Kind.TUNING_PICTURE)], [checkpoint, output])
    described = hints.hints_from(backbone, backbone_args, selector, fuse_token, stages, keep_rate, img_size, weights)
    with console.progress() as progress:
        tuning = tune_checkpoint(
            load(checkpoint, described),
            output,
            latency_ms=latency_ms,
            speedup=speedup,
            macs=macs,
            target=target,
            batch=batch,
            data=data,
            samples=samples,
            rounds=rounds,
            processes=processes,
            threads=threads,
            progress=progress,
        )
    drawn = _draw(tuning, picture)
    _show(tuning)
    console.say(f"Wrote {output} and {picture}" if drawn else f"Wrote {output}")
    if not tuning.reached:
        console.warn("No keep counts meet the goal here; these come closest.")
    again = hints.typed(backbone, backbone_args, selector, fuse_token, stages, img_size, weights)
    console.say(f"Next:  {command('onnx', checkpoint, '--keep-from', output, *again)}")
    if not tuning.reached:
        raise Exit(1)


def _draw(tuning: Tuning, picture: Path) -> bool:
    """Writes the picture. What it cannot is said at the end, after the results."""
    from tofe_export.page.tuning_chart import write_tuning_picture

    try:
        write_tuning_picture(tuning, picture)
    except TofeError as error:
        console.unwritten.append(error)
        return False
    return True


def _show(tuning: Tuning) -> None:
    settings = tuning.settings
    title = (
        f"{settings.target}, batch {settings.batch}, {settings.threads} threads, {settings.processes} processes; "
        f"dense: {tuning.dense_ms or 0.0:.2f} ms"
    )
    rows = [_row(one, tuning) for one in sorted(tuning.candidates, key=lambda one: one.ms or 0.0)]
    console.table(title, _COLUMNS, rows)
    if tuning.images is not None:
        console.show_images(tuning.images)
    if tuning.session is not None and tuning.session.threads is not None:
        session = tuning.session
        console.say(
            f"  session      {session.threads} threads, spinning {'on' if session.spinning else 'off'}, "
            f"arena {'on' if session.arena else 'off'}"
        )


def _row(one: TunedCounts, tuning: Tuning) -> tuple[str, ...]:
    known = one.speedup_low is not None
    return (
        ", ".join(map(str, one.keep)),
        f"{one.macs_ratio:.1%}",
        f"{one.predicted_ms:.2f}",
        "" if one.ms is None else f"{one.ms:.2f}",
        "" if one.speedup is None else f"{one.speedup:.2f}",
        f"{one.speedup_low:.2f} to {one.speedup_high:.2f}" if known else "",
        "" if one.agreement is None else f"{one.agreement:.1%}",
        "" if one.accuracy is None else f"{one.accuracy:.1%}",
        "picked" if one.keep == tuning.keep else "front" if one.on_front else "",
    )
