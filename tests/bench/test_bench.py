"""Ratios are taken within rounds, rows carry the contract's fields, and the dense backbone is always there."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers import small_tofe
from tofe_export.bench.timing import Timings, measure, paired_ratio
from tofe_export.checkpoints.checkpoint import Checkpoint, save
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.errors import InputError
from tofe_export.workflows.bench_models import bench_models
from tofe_export.workflows.export_onnx import OnnxOptions, export_onnx

FIELDS = {
    "name", "backend", "precision", "batch", "p50_ms", "p90_ms", "p99_ms", "images_per_s", "gmacs", "speedup",
    "speedup_low", "speedup_high", "realised_fraction", "calls",
}  # fmt: skip


def timings(values: list[float]) -> Timings:
    return Timings(np.array(values), np.array(values))


def test_a_machine_that_slows_down_does_not_change_the_ratio() -> None:
    drift = np.linspace(1, 5, 31)
    ratio = paired_ratio(timings(list(2 * drift)), timings(list(drift)))
    assert (ratio.median, ratio.low, ratio.high) == pytest.approx((2, 2, 2))


def test_noise_shows_in_the_interval() -> None:
    noise = np.random.default_rng(0).uniform(0.5, 1.5, 40)
    ratio = paired_ratio(timings(list(2 * noise)), timings([1.0] * 40))
    assert ratio.low < ratio.median < ratio.high


def test_every_subject_runs_in_every_round_and_the_order_rotates() -> None:
    calls: list[int] = []
    found = measure([lambda: calls.append(0), lambda: calls.append(1), lambda: calls.append(2)], rounds=3)
    assert [len(subject.rounds_ms) for subject in found] == [3, 3, 3]
    assert all(len(subject.runs_ms) >= 3 for subject in found)
    changes = [a for a, b in zip(calls, [*calls[1:], -1], strict=True) if a != b]
    assert changes[3:] == [0, 1, 2, 1, 2, 0, 2, 0, 1] or changes[2:] == [2, 0, 1, 2, 1, 2, 0, 2, 0, 1]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bench")
    model = small_tofe()
    checkpoint = folder / "ckpt.pth"
    save(checkpoint, Checkpoint(model, (0.5, 0.3, 0.2), Preprocessing.of_backbone(model.vit), {}, "digits"))
    found = {"ckpt": checkpoint}
    for form in ("plugin", "elide"):
        found[form] = folder / f"{form}.onnx"
        export_onnx(checkpoint, found[form], OnnxOptions(rearrange=form == "plugin"))
    return found


def test_rows(files: dict[str, Path]) -> None:
    document = bench_models([files["plugin"], files["elide"], files["ckpt"]], batches=(1, 2), rounds=3, threads=1)
    assert document["schema"] == "tofe-export/bench/1"
    rows = document["rows"]
    assert all(set(row) == FIELDS for row in rows)
    names = [(row["backend"], row["batch"], row["name"]) for row in rows]
    dense = "vit_tiny_patch16_224 (dense)"
    assert names == [
        *(("onnxruntime", batch, name) for batch in (1, 2) for name in (dense, "plugin.onnx", "elide.onnx")),
        *(("torch", batch, name) for batch in (1, 2) for name in (dense, "ckpt.pth")),
    ]
    for row in rows:
        promised = rows[0]["gmacs"] / row["gmacs"]
        assert row["realised_fraction"] == pytest.approx(row["speedup"] / promised)
        assert row["images_per_s"] == pytest.approx(row["batch"] / row["p50_ms"] * 1e3)
        assert row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
        assert row["speedup_low"] <= row["speedup"] <= row["speedup_high"]
    assert all(row["speedup"] == 1 for row in rows if row["name"] == dense)
    assert all(row["calls"] >= 3 for row in rows)
    assert document["settings"]["threads"] == 1


def test_the_number_of_threads_is_put_back(files: dict[str, Path]) -> None:
    before = torch.get_num_threads()
    bench_models([files["ckpt"]], batches=(1,), rounds=1, threads=before + 1)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("arguments", [{"batches": (0,)}, {"batches": ()}, {"rounds": 0}, {"threads": 0}])
def test_numbers_that_make_no_sense(files: dict[str, Path], arguments: dict[str, object]) -> None:
    with pytest.raises(InputError, match="must be 1 or more"):
        bench_models([files["plugin"]], **arguments)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="No model"):
        bench_models([])
