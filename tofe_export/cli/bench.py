"""tofe-export bench"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tofe_export.cli import console
from tofe_export.cli.parse import whole_numbers

_COLUMNS = ("model", "batch", "p50 ms", "p90 ms", "p99 ms", "images/s", "GMACs", "speed-up", "95% interval", "realised")


def bench(
    models: Annotated[list[Path], typer.Argument(help="ONNX files, engines and checkpoints.", metavar="MODEL...")],
    batch: Annotated[str, typer.Option(help="Batch sizes.", metavar="B1,B2")] = "1,8,32",
    rounds: Annotated[int, typer.Option(help="Rounds of interleaved runs at each batch size.", min=1)] = 30,
    threads: Annotated[
        int | None, typer.Option(help="Threads; default: every processor of this process.", min=1)
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the result as JSON.", metavar="FILE")] = None,
) -> None:
    """Time models beside their dense backbone, in turn and in one process."""
    from tofe_export.workflows.bench_models import bench_models

    with console.progress() as report:
        document = bench_models(models, whole_numbers(batch, "--batch"), rounds, threads, report)
    show_bench(document)
    console.save_json(json, document)


def show_bench(document: dict[str, Any]) -> None:
    """The rows of bench.json as one table per backend."""
    settings = document["settings"]
    for backend in dict.fromkeys(row["backend"] for row in document["rows"]):
        rows = [_bench_row(row) for row in document["rows"] if row["backend"] == backend]
        console.table(f"{backend}: {settings['threads']} threads, {settings['rounds']} rounds", _COLUMNS, rows)
    console.say("speed-up: against the dense backbone in the same rounds; realised: speed-up / (dense GMACs / GMACs)")


def _bench_row(row: dict[str, Any]) -> tuple[str, ...]:
    """A row of bench.json as text."""
    dense = row["speedup"] == row["speedup_low"] == row["speedup_high"] == 1.0
    return (
        row["name"],
        str(row["batch"]),
        *(f"{row[key]:.2f}" for key in ("p50_ms", "p90_ms", "p99_ms")),
        f"{row['images_per_s']:.1f}",
        f"{row['gmacs']:.3f}",
        f"{row['speedup']:.2f}",
        "" if dense else f"{row['speedup_low']:.2f} to {row['speedup_high']:.2f}",
        "" if dense else f"{row['realised_fraction']:.2f}",
    )
