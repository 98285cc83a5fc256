"""Ratios are taken within rounds, rows carry the contract's fields, and the dense backbone is always there."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers import refusal, small_tofe
from tofe_export.api.bench import bench
from tofe_export.api.export import export
from tofe_export.artifacts.artifact import open_artifact
from tofe_export.checkpoints.checkpoint import Checkpoint, load, save
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.documents.base import read_document
from tofe_export.documents.benchmark import Benchmark
from tofe_export.files.writing import write_text
from tofe_export.timing.interleaved import Timings, measure, paired_ratio

FIELDS = {
    "name", "backend", "precision", "batch", "p50_ms", "p90_ms", "p99_ms", "images_per_s", "gmacs", "speedup",
    "speedup_low", "speedup_high", "realised_fraction", "calls", "dense",
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
    measured = measure([lambda: calls.append(0), lambda: calls.append(1), lambda: calls.append(2)], rounds=3)
    assert [len(subject.rounds_ms) for subject in measured] == [3, 3, 3]
    assert all(len(subject.runs_ms) >= 3 for subject in measured)
    changes = [a for a, b in zip(calls, [*calls[1:], -1], strict=True) if a != b]
    assert changes[3:] == [0, 1, 2, 1, 2, 0, 2, 0, 1] or changes[2:] == [2, 0, 1, 2, 1, 2, 0, 2, 0, 1]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bench")
    model = small_tofe()
    paths = {name: folder / name for name in ("ckpt.pth", "plugin.onnx", "elide.onnx")}
    save(paths["ckpt.pth"], Checkpoint(model, (0.5, 0.3, 0.2), Preprocessing.of_backbone(model.vit), {}, "digits"))
    for form in ("plugin", "elide"):
        export(paths["ckpt.pth"], paths[f"{form}.onnx"], rearrange=form)
    return paths


def test_rows(files: dict[str, Path], tmp_path: Path) -> None:
    models = [files["plugin.onnx"], str(files["elide.onnx"]), load(files["ckpt.pth"])]
    before = torch.random.get_rng_state()
    benchmark = bench(models, batches=(1, 2), rounds=3, threads=1)
    assert torch.equal(torch.random.get_rng_state(), before), "dense twins are not drawn from the generator of others"
    rows = benchmark.rows
    assert all(set(row.to_dict()) == FIELDS for row in rows)
    dense = "vit_tiny_patch16_224 (dense)"
    assert [(row.backend, row.batch, row.name) for row in rows] == [
        *(("onnxruntime", batch, name) for batch in (1, 2) for name in (dense, "plugin.onnx", "elide.onnx")),
        *(("torch", batch, name) for batch in (1, 2) for name in (dense, "ckpt.pth")),
    ]
    for row in rows:
        promised = rows[0].gmacs / row.gmacs
        assert row.realised_fraction == pytest.approx(row.speedup / promised)
        assert row.images_per_s == pytest.approx(row.batch / row.p50_ms * 1e3)
        assert row.p50_ms <= row.p90_ms <= row.p99_ms
        assert row.speedup_low is not None
        assert row.speedup_high is not None
        assert row.speedup_low <= row.speedup <= row.speedup_high
        assert row.dense == (row.name == dense)
        assert row.calls is not None
        assert row.calls >= 3
        if row.dense:
            assert row.speedup == 1
        else:
            assert benchmark.dense_of(row) is next(one for one in rows if one.dense and one.key[1:] == row.key[1:])
    assert benchmark.settings.threads == 1
    write_text(tmp_path / "bench.json", benchmark.to_json())
    assert read_document(Benchmark, tmp_path / "bench.json", "") == benchmark


def test_a_recorded_run_judges_the_new_one(files: dict[str, Path], tmp_path: Path) -> None:
    artifact, path = open_artifact(files["plugin.onnx"]), tmp_path / "old.json"
    tasks: list[str] = []
    first = bench(artifact, batches=(1,), rounds=2, threads=1, progress=lambda task, done, total: tasks.append(task))
    assert tasks == ["onnxruntime, batch 1"] * 3
    assert first.baseline is None
    slower = first.replaced(rows=tuple(row.replaced(speedup=row.speedup / 100) for row in first.rows))
    faster = first.replaced(rows=tuple(row.replaced(speedup=row.speedup * 1000) for row in first.rows))
    path.write_text(slower.to_json())
    arguments: dict[str, Any] = {"batches": (1,), "rounds": 2, "threads": 1, "max_regression": 0.5}
    gate = bench(artifact, baseline=path, **arguments).baseline
    assert gate is not None
    assert (gate.passed, gate.file, gate.rows[0].verdict) == (True, "old.json", "held")
    gate = bench(artifact, baseline=faster, **arguments).baseline
    assert gate is not None
    assert (gate.passed, gate.rows[0].verdict) == (False, "regressed")
    only_dense = first.replaced(rows=first.rows[:1])
    assert refusal(bench, artifact, baseline=only_dense).code == "baseline-empty"


def test_a_checkpoint_that_was_never_in_a_file_has_a_name() -> None:
    model = small_tofe()
    checkpoint = Checkpoint(model, (0.5, 0.3, 0.2), Preprocessing.of_backbone(model.vit))
    rows = bench([checkpoint, checkpoint], batches=1, rounds=1, threads=1).rows
    assert [row.name for row in rows if not row.dense] == ["checkpoint 1", "checkpoint 2"]
    unknown = Checkpoint(model, (), Preprocessing.of_backbone(model.vit))
    error = refusal(bench, unknown)
    assert "`keep`" in error.next_step


def test_the_number_of_threads_is_put_back(files: dict[str, Path]) -> None:
    before = torch.get_num_threads()
    bench(files["ckpt.pth"], batches=(1,), rounds=1, threads=before + 1)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    "arguments",
    [
        *({"batches": (0,)}, {"batches": (1, 70_000)}, {"batches": ()}, {"rounds": 0}, {"threads": 0}),
        *({"max_regression": -0.1}, {"max_regression": float("nan")}),
    ],
)
def test_numbers_out_of_range(files: dict[str, Path], arguments: dict[str, Any]) -> None:
    error = refusal(bench, files["plugin.onnx"], **arguments)
    (name,) = arguments
    assert f"`{name}`" in error.message + error.next_step
    assert error.exit_code == 2


def test_models_that_cannot_be_timed(files: dict[str, Path], tmp_path: Path) -> None:
    assert refusal(bench, []).code == "no-model"
    assert refusal(bench, tmp_path / "m.engine", threads=2).code == "threads-for-engines"
    assert refusal(bench, tmp_path / "m.onnx").code == "no-file"
    (tmp_path / "m.onnx").write_bytes(files["plugin.onnx"].read_bytes())
    assert refusal(bench, [files["plugin.onnx"], tmp_path / "m.onnx"]).code == "manifest-missing"
