"""`tofe-export bench`: files to bench.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tofe_export.artifacts.machine import processors
from tofe_export.bench.baseline import judge, read_baseline
from tofe_export.bench.run import bench
from tofe_export.bench.subjects import open_groups
from tofe_export.bounds import LARGEST_BATCH, MOST_ROUNDS, MOST_THREADS, require_within
from tofe_export.errors import InputError
from tofe_export.runners.onnxruntime_runner import CPU, require_onnx
from tofe_export.workflows.progress import Report, silent

BATCHES = (1, 8, 32)
ROUNDS = 30


@dataclass(frozen=True)
class Gate:
    """A recorded bench.json, and the share of a speed-up that may be lost against it."""

    file: Path
    max_regression: float = 0.05


def bench_models(
    paths: Sequence[Path],
    batches: Sequence[int] = BATCHES,
    rounds: int = ROUNDS,
    threads: int | None = None,
    report: Report = silent,
    gate: Gate | None = None,
    provider: str = CPU,
) -> dict[str, Any]:
    """Times every file beside its dense backbone.

    Args:
        paths: ONNX files, engines and checkpoints.
        batches: batch sizes.
        rounds: rounds of interleaved runs at each batch size.
        threads: threads of each; None means every processor of this process.
        report: progress.
        gate: a recorded run to hold the result against; the verdict is the document's "baseline".
        provider: where ONNX Runtime computes.

    Raises:
        MissingError: an engine or a provider that cannot run here.
        InputError: no file, a batch, round or thread count out of range, an option that concerns none of
            the files, or a file that cannot be used.
    """
    if not paths:
        raise InputError("No model was given.", "Type: tofe-export bench model.onnx")
    if min(batches, default=0) < 1 or rounds < 1 or (threads is not None and threads < 1):
        raise InputError("Batch sizes, rounds and threads must be 1 or more.", "For example --batch 1,8 --rounds 30.")
    require_within("--batch", max(batches), 1, LARGEST_BATCH)
    require_within("--rounds", rounds, 1, MOST_ROUNDS)
    require_within("--threads", threads or 1, 1, MOST_THREADS)
    if all(path.suffix == ".engine" for path in paths) and threads is not None:
        raise InputError("--threads is for processors, and engines run on a GPU.", "Leave it away.")
    require_onnx(paths, provider)
    count = threads or processors()
    recorded = None if gate is None else read_baseline(gate.file)  # before anything is timed
    document = bench(open_groups(list(paths), count, provider), list(batches), rounds, count, report)
    if gate is None or recorded is None:
        return document
    return document | {"baseline": judge(document, recorded, gate.max_regression)}
