"""The tables of docs/dense-tasks.md say what the published figures say."""

import json
from pathlib import Path
from statistics import mean

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/dense-tasks.md").read_text()


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_each_row_stands_on_the_page(task: str) -> None:
    rows = json.loads((ROOT / f"benchmarks/results/{task}.json").read_text())["rows"]
    for method, size in dict.fromkeys((row["method"], row["size"]) for row in rows):
        those = [row for row in rows if (row["method"], row["size"]) == (method, size)]
        seeds = ", ".join(f"{row['pytorch']:.3f}" for row in those)
        share, pytorch, onnx = (mean(row[name] for row in those) for name in ("macs_share", "pytorch", "onnx"))
        assert f"| `{method}` | {size} | {share:.0%} | {seeds} | {pytorch:.3f} | {onnx:.3f} |" in PAGE
