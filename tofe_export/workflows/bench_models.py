"""`tofe-export bench`: files to bench.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tofe_export.artifacts.machine import processors
from tofe_export.bench.run import bench
from tofe_export.bench.subjects import open_groups
from tofe_export.errors import InputError
from tofe_export.workflows.progress import Report, silent

BATCHES = (1, 8, 32)
ROUNDS = 30


def bench_models(
    paths: Sequence[Path],
    batches: Sequence[int] = BATCHES,
    rounds: int = ROUNDS,
    threads: int | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """Times every file beside its dense backbone.

    Raises:
        InputError: no file, a batch, round or thread count below 1, or a file that cannot be used.
    """
    if not paths:
        raise InputError("No model was given.", "Type: tofe-export bench model.onnx")
    if min(batches, default=0) < 1 or rounds < 1 or (threads is not None and threads < 1):
        raise InputError("Batch sizes, rounds and threads must be 1 or more.", "For example --batch 1,8 --rounds 30.")
    count = threads or processors()
    return bench(open_groups(list(paths), count), list(batches), rounds, count, report)
