"""The two kernels on a GPU: bandwidth against a device copy of the same size, time against PyTorch's own operators.

    python benchmarks/gpu_kernels.py [--json benchmarks/results/gpu_kernels.json]

Each candidate is captured twenty times in a CUDA graph, so that what is timed is the GPU and not Python.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kernel_launch as launch
import torch
from torch import Tensor

from tofe_export.documents.machine import describe_machine, describe_versions
from tofe_export.files.writing import write_json
from tofe_export.model import operators
from tofe_export.timing.blocks import measure
from tofe_export.timing.intervals import ratio_within

PATCHES, KEEP, WIDTH = 196, 96, 384
REPEATS, ROUNDS = 20, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "gpu_kernels.json")
    options = parser.parse_args()
    document = {
        "schema": "tofe-export/benchmark/1",
        "command": "python benchmarks/gpu_kernels.py",
        "machine": describe_machine().to_dict(),
        "versions": describe_versions(),
        "rows": measure_kernels(),
    }
    write_json(options.json, document)
    print(json.dumps(document["rows"], indent=1))


def measure_kernels() -> list[dict[str, Any]]:
    """A row per operator, dtype and batch.

    Raises:
        RuntimeError: no GPU.
    """
    if not torch.cuda.is_available():
        raise RuntimeError("there is no NVIDIA GPU that PyTorch can use")
    return [_row(batch, dtype) for dtype in (torch.float16, torch.float32) for batch in (1, 8, 64)]


def _row(batch: int, dtype: torch.dtype) -> dict[str, Any]:
    tokens = torch.randn(batch, PATCHES + 1, WIDTH, device="cuda").to(dtype)
    scores = torch.randn(batch, PATCHES, device="cuda")
    kept, frozen, perm = operators.token_partition(tokens, scores, KEEP, 1)
    target = torch.empty_like(tokens)

    def topk_gather() -> Tensor:
        ranks = scores.topk(PATCHES, dim=1).indices
        rows = tokens[:, 1:].gather(1, ranks.unsqueeze(-1).expand(-1, -1, WIDTH))
        return torch.cat([tokens[:, :1], rows[:, :KEEP]], 1)

    runs: dict[str, Callable[[], object]] = {
        "copy": lambda: target.copy_(tokens),
        "token_partition": lambda: launch.token_partition(tokens, scores, KEEP, 1),
        "scatter_rearrange": lambda: launch.scatter_rearrange(kept, frozen, perm, 1),
        "torch topk + gather": topk_gather,
        "torch scatter": lambda: operators.scatter_rearrange(kept, frozen, perm, 1),
    }
    timings = dict(zip(runs, measure([_captured(run) for run in runs.values()], ROUNDS), strict=True))
    moved = 2 * tokens.numel() * tokens.element_size()
    row: dict[str, Any] = {"batch": batch, "dtype": str(dtype).removeprefix("torch."), "bytes_moved": moved}
    for name, found in timings.items():
        micros = found.percentile_ms(50) * 1e3 / REPEATS
        row[name] = {
            "p50_us": micros,
            "gb_per_s": moved / micros / 1e3,
            "share_of_copy": ratio_within(timings["copy"], found),
        }
    row["partition_speedup_over_torch"] = ratio_within(timings["torch topk + gather"], timings["token_partition"])
    row["rearrange_speedup_over_torch"] = ratio_within(timings["torch scatter"], timings["scatter_rearrange"])
    return row


def _captured(run: Callable[[], object]) -> Callable[[], None]:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for _ in range(REPEATS):
            run()

    def replay() -> None:
        graph.replay()
        torch.cuda.synchronize()

    return replay


if __name__ == "__main__":
    main()
