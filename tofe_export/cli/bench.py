"""tofe-export bench"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, BadParameter, Exit, Option

from tofe_export.bounds import MOST_PROCESSES, MOST_ROUNDS, MOST_THREADS
from tofe_export.cli import console
from tofe_export.cli.parse import share, whole_numbers

if TYPE_CHECKING:
    from tofe_export.documents.benchmark import Benchmark, BenchRow, Gate, GateRow

_COLUMNS = (
    *("model", "batch", "p50 ms", "p90 ms", "p99 ms", "images/s", "GMACs", "speed-up", "95% interval", "realised"),
    "efficiency",
)
_GATE_COLUMNS = ("model", "backend", "precision", "batch", "before", "now", "change", "verdict")


def bench(
    models: Annotated[list[Path], Argument(help="ONNX files, engines and checkpoints.", metavar="MODEL...")],
    batch: Annotated[str, Option(help="Batch sizes.", metavar="B1,B2")] = "1,8,32",
    rounds: Annotated[int, Option(help="Rounds at each batch size in each process.", min=1, max=MOST_ROUNDS)] = 4,
    processes: Annotated[
        int, Option(help="Fresh processes, over which intervals are taken.", min=1, max=MOST_PROCESSES)
    ] = 5,
    threads: Annotated[
        int | None, Option(help="Threads; default: every processor of this process.", min=1, max=MOST_THREADS)
    ] = None,
    json: Annotated[Path | None, Option(help="Write the result as JSON.", metavar="FILE")] = None,
    baseline: Annotated[
        Path | None, Option(help="A recorded result (--json); exit 1 when a speed-up fell.", metavar="FILE")
    ] = None,
    max_regression: Annotated[
        str | None, Option(help="How much of a speed-up may be lost against --baseline; default 5%.", metavar="SHARE")
    ] = None,
    provider: Annotated[Literal["cpu", "cuda"], Option(help="Where ONNX Runtime computes.")] = "cpu",
) -> None:
    """Time models beside their dense backbone, in several fresh processes."""
    from tofe_export.api.bench import bench as time_models
    from tofe_export.artifacts.file_kinds import Kind
    from tofe_export.artifacts.outputs import Output, require_outputs

    if max_regression is not None and baseline is None:
        raise BadParameter("it needs a recorded run: add --baseline FILE.", param_hint="--max-regression")
    sizes, limit = whole_numbers(batch, "--batch"), share(max_regression or "5%")
    require_outputs([Output(json, Kind.BENCH)], [*models, baseline])
    with console.progress() as progress:
        benchmark = time_models(
            models,
            batches=sizes,
            rounds=rounds,
            processes=processes,
            threads=threads,
            provider=provider,
            baseline=baseline,
            max_regression=limit,
            progress=progress,
        )
    console.save_json(json, benchmark)
    show_bench(benchmark)
    if benchmark.baseline is not None:
        _show_gate(benchmark.baseline)


def _show_gate(gate: Gate) -> None:
    title = f"Speed-up against {gate.file}: {gate.max_regression:.1%} may be lost"
    console.table(title, _GATE_COLUMNS, [_gate_row(row) for row in gate.rows])
    console.notes(gate.notes)
    console.warn(*gate.failures)
    console.say("PASSED" if gate.passed else "FAILED")
    if not gate.passed:
        raise Exit(1)


def _gate_row(row: GateRow) -> tuple[str, ...]:
    now = "" if row.speedup is None else f"{row.speedup:.2f}"
    change = "" if row.change is None else f"{row.change:+.1%}"
    return (row.name, row.backend, row.precision, str(row.batch), f"{row.baseline:.2f}", now, change, row.verdict)


def show_bench(benchmark: Benchmark) -> None:
    """The rows as one table per backend."""
    from tofe_export.runners.base import in_host_memory

    settings = benchmark.settings
    for backend in dict.fromkeys(row.backend for row in benchmark.rows):
        rows = [_bench_row(row) for row in benchmark.rows if row.backend == backend]
        threads = f"{settings.threads} threads, " if in_host_memory(backend) else "copies not timed, "
        repeated = f"{settings.rounds} rounds in each of {settings.processes} processes"
        console.table(f"{backend}: {threads}{repeated}", *_filled(rows))
    console.say(
        "speed-up: against the dense backbone in the same rounds; realised: speed-up / (dense GMACs / GMACs); "
        "efficiency: MACs per second, as a share of the fastest matrix product here"
    )


def _filled(rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """The columns in which a row has anything, and the rows without the others."""
    places = [place for place in range(len(_COLUMNS)) if any(row[place] for row in rows)]
    return [_COLUMNS[place] for place in places], [[row[place] for place in places] for row in rows]


def _bench_row(row: BenchRow) -> tuple[str, ...]:
    known = not row.dense and row.speedup_low is not None
    return (
        row.name,
        str(row.batch),
        *("" if value is None else f"{value:.2f}" for value in (row.p50_ms, row.p90_ms, row.p99_ms)),
        f"{row.images_per_s:.1f}",
        f"{row.gmacs:.3f}",
        f"{row.speedup:.2f}",
        f"{row.speedup_low:.2f} to {row.speedup_high:.2f}" if known else "",
        "" if row.dense else f"{row.realised_fraction:.2f}",
        "" if row.efficiency is None else f"{row.efficiency:.1%}",
    )
