"""Times models beside their dense backbone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tofe_export.api.load import AnyModel, listed, open_model, path_of, require_no_ends
from tofe_export.artifacts.artifact import Artifact, require_onnxruntime
from tofe_export.bounds import LARGEST_BATCH, MOST_PROCESSES, MOST_ROUNDS, MOST_THREADS, require_within
from tofe_export.documents.benchmark import Benchmark
from tofe_export.documents.machine import processors
from tofe_export.errors import InputError
from tofe_export.files.names import readable
from tofe_export.progress import Progress, silent
from tofe_export.runners.onnxruntime_runner import CPU, require_onnx
from tofe_export.timing.baseline import judge, read_baseline, require_rows
from tofe_export.timing.groups import Settings, time_models


def bench(
    models: AnyModel | Sequence[AnyModel],
    *,
    batches: int | Sequence[int] = (1, 8, 32),
    rounds: int = 4,
    processes: int = 5,
    threads: int | None = None,
    provider: str = CPU,
    baseline: Benchmark | Path | str | None = None,
    max_regression: float = 0.05,
    progress: Progress = silent,
) -> Benchmark:
    """Times every model beside its dense backbone, in hot blocks and in several processes.

    Args:
        models: one or more ONNX files, engines and checkpoints.
        batches: batch sizes, or one.
        rounds: rounds of blocks at each batch size in each process. A block is five calls of one model or more, after
            two that are not measured.
        processes: fresh processes, one after the other, over which the interval of a speed-up is taken; one has no
            interval.
        threads: threads of each model, whatever session parameters it was tuned with; None means every processor of
            this process.
        provider: where ONNX Runtime computes, "cpu" or "cuda".
        baseline: a recorded result that the new one is judged by; see `Benchmark.baseline`.
        max_regression: share of a speed-up that may be lost against `baseline`, 0..1.
        progress: called with what is being done, steps done, steps in all.

    Returns:
        A row per model and batch size, the dense backbone first.

    Raises:
        InputError: no model, a number out of range, an argument that concerns none of the models, or a file that
            cannot be used.
        MissingError: an engine or a provider that cannot run here.
    """
    given = listed(models)
    sizes = require_timing(batches, rounds, processes, threads)
    require_within("max_regression", max_regression, 0, 1)
    if threads is not None and all(path_of(model).suffix == ".engine" for model in given):
        raise InputError(
            "`threads` is for processors, and engines run on a GPU.", "Omit it.", code="threads-for-engines"
        )
    require_onnx(map(path_of, given), provider)
    name = "the baseline"
    if isinstance(baseline, Benchmark):
        require_rows(baseline, "`baseline`")
    elif baseline is not None:  # read before anything is timed
        name = readable(Path(baseline).name)
        baseline = read_baseline(Path(baseline))
    opened = [open_model(model, "time") for model in given]
    for one in opened:
        if isinstance(one, Artifact):
            require_no_ends(one)
    require_onnxruntime([model for model in opened if isinstance(model, Artifact)], provider)
    settings = Settings(tuple(sizes), rounds, processes, threads or processors(), provider)
    benchmark = time_models(opened, settings, progress)
    if baseline is None:
        return benchmark
    return benchmark.replaced(baseline=judge(benchmark, baseline, name, max_regression))


def require_timing(batches: int | Sequence[int], rounds: int, processes: int, threads: int | None) -> Sequence[int]:
    """The batch sizes, of one or several. Raises InputError where they or one of the other numbers is out of range."""
    sizes = (batches,) if isinstance(batches, int) else batches
    if not sizes:
        raise InputError("No batch size was given.", "Name at least one in `batches`.", code="no-batch")
    for batch in sizes:
        require_within("batches", batch, 1, LARGEST_BATCH)
    require_within("rounds", rounds, 1, MOST_ROUNDS)
    require_within("processes", processes, 1, MOST_PROCESSES)
    require_within("threads", 1 if threads is None else threads, 1, MOST_THREADS)
    return sizes
