"""Times groups at several batch sizes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tofe_export.documents.benchmark import Benchmark, BenchRow, BenchSettings
from tofe_export.documents.machine import describe_machine, describe_versions
from tofe_export.progress import Progress
from tofe_export.timing.interleaved import Ratio, Timings, measure, paired_ratio
from tofe_export.timing.subjects import Group, Subject


def time_groups(
    groups: Sequence[Group], batches: Sequence[int], rounds: int, threads: int, progress: Progress
) -> Benchmark:
    """A row per subject and batch size, the dense backbone first.

    Latency is one call; preprocessing is not in it. On the CPU it goes from a float32 batch in host memory to outputs
    in host memory. On a GPU batch and outputs lie in GPU memory, and no copy is timed; an engine's call is the replay
    of a CUDA graph, as trtexec times it.

    Args:
        groups: from `open_groups`.
        batches: batch sizes.
        rounds: rounds of interleaved runs at each batch size.
        threads: threads used, for the record and for PyTorch.
        progress: called after each round.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        rows = [row for group in groups for batch in batches for row in _rows(group, batch, rounds, progress)]
    finally:
        torch.set_num_threads(before)
    return Benchmark(
        machine=describe_machine(),
        versions=describe_versions(),
        settings=BenchSettings(threads=threads, rounds=rounds, batches=tuple(batches)),
        rows=tuple(rows),
    )


def _rows(group: Group, batch: int, rounds: int, progress: Progress) -> list[BenchRow]:
    subjects = [group.dense, *group.others]
    images = np.random.default_rng(0).standard_normal((batch, *group.dense.image_shape), dtype=np.float32)

    task = f"{group.dense.runner.backend}, batch {batch}"
    progress(task, 0, rounds)
    timings = measure(
        [subject.runner.bind(images) for subject in subjects], rounds, lambda done: progress(task, done, rounds)
    )
    dense = timings[0]
    rows = [_row(group.dense, batch, dense, Ratio(1.0, 1.0, 1.0), group.dense.gmacs, dense=True)]
    for subject, own in zip(group.others, timings[1:], strict=True):
        rows.append(_row(subject, batch, own, paired_ratio(dense, own), group.dense.gmacs, dense=False))
    return rows


def _row(subject: Subject, batch: int, timings: Timings, speedup: Ratio, dense_gmacs: float, dense: bool) -> BenchRow:
    p50 = timings.percentile_ms(50)
    return BenchRow(
        name=subject.name,
        backend=subject.runner.backend,
        precision=subject.runner.precision,
        batch=batch,
        calls=len(timings.runs_ms),
        p50_ms=p50,
        p90_ms=timings.percentile_ms(90),
        p99_ms=timings.percentile_ms(99),
        images_per_s=batch / p50 * 1e3,
        gmacs=subject.gmacs,
        speedup=speedup.median,
        speedup_low=speedup.low,
        speedup_high=speedup.high,
        realised_fraction=speedup.median / (dense_gmacs / subject.gmacs),
        dense=dense,
    )
