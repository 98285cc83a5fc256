"""tofe-export bench"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tofe_export.bounds import MOST_ROUNDS, MOST_THREADS
from tofe_export.cli import console
from tofe_export.cli.parse import provider_name, whole_numbers

if TYPE_CHECKING:
    from tofe_export.workflows.bench_models import Gate

_COLUMNS = ("model", "batch", "p50 ms", "p90 ms", "p99 ms", "images/s", "GMACs", "speed-up", "95% interval", "realised")


def bench(
    models: Annotated[list[Path], typer.Argument(help="ONNX files, engines and checkpoints.", metavar="MODEL...")],
    batch: Annotated[str, typer.Option(help="Batch sizes.", metavar="B1,B2")] = "1,8,32",
    rounds: Annotated[
        int, typer.Option(help="Rounds of interleaved runs at each batch size.", min=1, max=MOST_ROUNDS)
    ] = 30,
    threads: Annotated[
        int | None, typer.Option(help="Threads; default: every processor of this process.", min=1, max=MOST_THREADS)
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the result as JSON.", metavar="FILE")] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="A recorded result (--json); exit 1 when a speed-up fell.", metavar="FILE")
    ] = None,
    max_regression: Annotated[
        str | None, typer.Option(help="How much of a speed-up may be lost against --baseline; default 5%.")
    ] = None,
    provider: Annotated[str, typer.Option(help="Where ONNX Runtime computes: cpu or cuda.")] = "cpu",
) -> None:
    """Time models beside their dense backbone, in turn and in one process."""
    from tofe_export.artifacts.file_kinds import Kind
    from tofe_export.artifacts.outputs import Output, require_outputs
    from tofe_export.workflows.bench_models import bench_models

    sizes, gate = whole_numbers(batch, "--batch"), _gate(baseline, max_regression)
    require_outputs([Output(json, Kind.BENCH)], [*models, baseline])
    with console.progress() as report:
        document = bench_models(models, sizes, rounds, threads, report, gate, provider_name(provider))
    console.save_json(json, document)
    show_bench(document)
    if gate is not None:
        _show_gate(document["baseline"])


def _gate(baseline: Path | None, max_regression: str | None) -> Gate | None:
    from tofe_export.bench.baseline import parse_share
    from tofe_export.errors import InputError
    from tofe_export.workflows.bench_models import Gate

    if baseline is None:
        if max_regression is not None:
            raise InputError("--max-regression needs a recorded run.", "Add --baseline FILE.")
        return None
    return Gate(baseline, parse_share(max_regression or "5%"))


def _show_gate(judged: dict[str, Any]) -> None:
    from tofe_export.bench.baseline import failures

    rows = [
        (row["name"], row["backend"], row["precision"], str(row["batch"]), f"{row['baseline']:.2f}")
        + (("", "", row["verdict"]) if row["speedup"] is None else _change(row))
        for row in judged["rows"]
    ]
    title = f"Speed-up against {judged['file']}: {judged['max_regression']:.1%} may be lost"
    console.table(title, ("model", "backend", "precision", "batch", "before", "now", "change", "verdict"), rows)
    console.warn([f"Note: {note}" for note in judged["notes"]])
    console.warn(failures(judged))
    console.say("PASSED" if judged["passed"] else "FAILED")
    if not judged["passed"]:
        raise typer.Exit(1)


def _change(row: dict[str, Any]) -> tuple[str, str, str]:
    return f"{row['speedup']:.2f}", f"{row['change']:+.1%}", row["verdict"]


def show_bench(document: dict[str, Any]) -> None:
    """The rows of bench.json as one table per backend."""
    from tofe_export.runners.base import in_host_memory

    settings = document["settings"]
    for backend in dict.fromkeys(row["backend"] for row in document["rows"]):
        rows = [_bench_row(row) for row in document["rows"] if row["backend"] == backend]
        threads = f"{settings['threads']} threads, " if in_host_memory(backend) else "copies not timed, "
        console.table(f"{backend}: {threads}{settings['rounds']} rounds", _COLUMNS, rows)
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
