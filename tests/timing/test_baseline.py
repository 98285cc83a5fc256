"""The gate fails on a lost speed-up, on nothing else, and refuses files that cannot be a baseline."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import refusal
from tests.timing import simulation
from tofe_export.documents.benchmark import Benchmark, Gate
from tofe_export.documents.machine import describe_machine
from tofe_export.timing.baseline import judge, read_baseline

FILE = "baseline.json"
_PLACES = np.array([-1.5, -0.5, 0.0, 0.5, 1.5]) / 1.118  # of five processes: mean 0, standard deviation 1
_REACH = 2.776 / 5**0.5  # of their interval


def row(speedup: float, spread: float = 0.01, batch: int = 1, **fields: Any) -> dict[str, Any]:
    return {
        "name": "model.onnx",
        "backend": "onnxruntime",
        "precision": "fp32",
        "batch": batch,
        "speedup": speedup,
        "speedup_low": speedup - spread,
        "speedup_high": speedup + spread,
        "speedups": [*(speedup + spread / _REACH * _PLACES)],
        "realised_fraction": speedup / 2,
        "gmacs": 2.0,
        **dict.fromkeys(("p50_ms", "p90_ms", "p99_ms"), 10.0),
        "images_per_s": 100.0,
        "dense": False,
        **fields,
    }


DENSE = row(1.0, 0.0, name="dense", dense=True)


def document(*rows: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "schema": "tofe-export/bench/1",
        "machine": {"processor": "a", "gpu": None},
        "settings": {"threads": 2},
        "rows": [DENSE, *rows],
        **fields,
    }


def benchmark(*rows: dict[str, Any], **fields: Any) -> Benchmark:
    return Benchmark.model_validate(document(*rows, **fields))


def judged(new: Benchmark, old: Benchmark, limit: float = 0.05) -> Gate:
    return judge(new, old, FILE, limit)


def test_a_held_speed_up_passes_whatever_the_times() -> None:
    gate = judged(benchmark(row(1.9, p50_ms=500.0)), benchmark(row(1.95)))
    assert gate.passed
    assert [entry.verdict for entry in gate.rows] == ["held"], "the dense row is not judged"
    assert gate.notes == gate.failures == ()


def test_a_lost_speed_up_fails_and_says_by_how_much() -> None:
    gate = judged(benchmark(row(1.7)), benchmark(row(2.0)))
    assert not gate.passed
    (sentence,) = gate.failures
    assert "model.onnx (onnxruntime, fp32) at batch 1 is 1.70 times as fast" in sentence
    assert "(interval 1.69 to 1.71), and was 2.00: 15.0% less, where 5.0% is allowed." in sentence


def test_noise_alone_does_not_fail() -> None:
    gate = judged(benchmark(row(1.8, spread=0.3)), benchmark(row(2.0)))
    assert gate.passed
    assert gate.rows[0].verdict == "unsure"


UNKNOWN: dict[str, Any] = {"speedup_low": None, "speedup_high": None}


def test_of_one_process_nothing_is_sure_and_a_note_says_so() -> None:
    one = {"speedups": [1.0], "processes": 1, **UNKNOWN}
    gate = judged(benchmark(row(1.0, **one)), benchmark(row(2.0)))
    assert (gate.passed, gate.rows[0].verdict) == (True, "unsure")
    assert gate.notes == ("This run has one process, so that no fall can be sure: give `processes=5`.",)
    gate = judged(benchmark(row(1.0)), benchmark(row(2.0, **{**one, "speedups": [2.0]})))
    assert (gate.passed, gate.rows[0].verdict) == (True, "unsure")
    assert gate.notes == ("The baseline holds one process, so that no fall can be sure: record it again.",)
    gate = judged(benchmark(row(2.0, **{**one, "speedups": [2.0]})), benchmark(row(2.0)))
    assert gate.rows[0].verdict == "held"


def test_a_baseline_of_an_older_version_is_taken_at_its_interval() -> None:
    old = row(2.0, spread=0.02, speedups=[])
    for new, verdict in ((1.7, "regressed"), (1.95, "held")):
        gate = judged(benchmark(row(new)), benchmark(old))
        assert gate.rows[0].verdict == verdict
        (note,) = gate.notes
        assert "the interval of a single process" in note
    gate = judged(benchmark(row(1.8)), benchmark(row(2.0, spread=0.4, speedups=[])))
    assert gate.rows[0].verdict == "unsure", "the spread of the baseline counts too"
    gate = judged(benchmark(row(1.0)), benchmark(row(2.0, speedups=[], **UNKNOWN)))
    assert gate.rows[0].verdict == "unsure"


@given(old=st.floats(0.2, 50), factor=st.floats(0.1, 3), limit=st.floats(0, 0.9))
def test_the_limit_is_a_share_of_the_old_speed_up(old: float, factor: float, limit: float) -> None:
    new = row(old * factor, spread=0.0)
    gate = judged(benchmark(new), benchmark(row(old, spread=0.0)), limit)
    assert gate.passed == (not new["speedup"] / old - 1 < -limit)


def runs(random: np.random.Generator, truth: float, process_sd: float) -> Benchmark:
    """What `bench` might record of a model at three batch sizes."""
    rows = []
    for batch in (1, 8, 32):
        ratio = simulation.run(random, truth, process_sd=process_sd)
        ends = {"speedup_low": ratio.low, "speedup_high": ratio.high, "speedups": list(ratio.by_process)}
        rows.append(row(ratio.value, batch=batch, **ends))
    return benchmark(*rows)


@pytest.mark.parametrize("process_sd", [0.015, 0.06])
def test_an_unchanged_model_seldom_fails_however_much_processes_differ(process_sd: float) -> None:
    random, times = np.random.default_rng(0), 200
    passed = [judged(runs(random, 1.8, process_sd), runs(random, 1.8, process_sd)).passed for _ in range(times)]
    assert passed.count(False) <= 0.05 * times


def test_a_real_loss_of_15_percent_is_found() -> None:
    random, times = np.random.default_rng(0), 100
    verdicts = [
        [entry.verdict for entry in judged(runs(random, 1.8 * 0.85, 0.015), runs(random, 1.8, 0.015)).rows]
        for _ in range(times)
    ]
    for place in range(3):
        assert [of_run[place] for of_run in verdicts].count("regressed") >= 0.9 * times


def test_what_was_not_timed_fails_and_what_is_new_is_noted() -> None:
    gate = judged(benchmark(row(2.0, batch=8)), benchmark(row(2.0)))
    assert not gate.passed
    assert gate.failures == ("model.onnx (onnxruntime, fp32) at batch 1 is in baseline.json, but was not timed now.",)
    assert any("at batch 8 is not in the baseline" in note for note in gate.notes)


def test_another_machine_threads_or_model_is_noted() -> None:
    old = benchmark(row(2.0, gmacs=1.0), machine={"processor": "b"}, settings={"threads": 16})
    notes = " ".join(judged(benchmark(row(2.0)), old).notes)
    assert "another processor (b, now a)" in notes
    assert "with 16 threads" in notes
    assert "another model" in notes


def test_another_gpu_is_noted_by_the_name_that_bench_records() -> None:
    here = describe_machine().replaced(gpu="NVIDIA H200").to_dict()
    old = benchmark(row(2.0), machine={**here, "gpu": "NVIDIA A100"})
    (note,) = judged(benchmark(row(2.0), machine=here), old).notes
    assert "another gpu (NVIDIA A100, now NVIDIA H200)" in note


def test_a_gate_is_read_again_as_it_was_written() -> None:
    new = benchmark(row(1.7))
    whole = new.replaced(baseline=judged(new, benchmark(row(2.0), row(2.0, batch=8))))
    again = Benchmark.model_validate_json(whole.to_json())
    assert again == whole
    assert again.baseline is not None
    assert len(again.baseline.failures) == 2


def test_a_failure_is_a_sentence_whatever_numbers_are_missing() -> None:
    gate = judged(benchmark(row(1.7)), benchmark(row(2.0)))
    for missing in ("low", "high", "change", "speedup"):
        spoilt = gate.replaced(rows=(gate.rows[0].replaced(**{missing: None}),))
        assert all(sentence.endswith(".") for sentence in spoilt.failures)


BASE = document(row(2.0))


@pytest.mark.parametrize(
    ("content", "code", "field"),
    [
        ("", "not-json", None),
        ("[]", "json-kind", None),
        ("[" * 2000, "not-json", None),
        ('{"schema": "tofe-export/verify/1", "rows": []}', "document-schema", None),
        ('{"schema": ["tofe-export/bench/1"], "rows": []}', "document-schema", None),
        ('{"schema": "tofe-export/bench/1"}', "document-field", "rows"),
        ('{"schema": "tofe-export/bench/1", "rows": 3}', "document-field", "rows"),
        ('{"schema": "tofe-export/bench/1", "rows": [3]}', "document-field", "rows.0"),
        (json.dumps(document()), "baseline-empty", None),
        (json.dumps(document({**row(2.0), "speedup": None})), "document-field", "rows.1.speedup"),
        (json.dumps(document({**row(2.0), "batch": True})), "document-field", "rows.1.batch"),
        (json.dumps(document(row(2.0, name=""))), "document-field", "rows.1.name"),
        (json.dumps(document(row(2.0, gmacs=float("nan")))), "document-field", "rows.1.gmacs"),
        (json.dumps(document(row(2.0, gmacs=10**400))), "document-field", "rows.1.gmacs"),
        (json.dumps(document(row(-2.0))), "document-field", "rows.1.speedup"),
    ],
)
def test_files_that_are_not_a_baseline_are_refused(tmp_path: Path, content: str, code: str, field: str | None) -> None:
    path = tmp_path / FILE
    path.write_text(content)
    error = refusal(read_baseline, path)
    assert (error.code, error.exit_code, error.details.get("field")) == (code, 2, field)
    assert FILE in error.message
    assert error.next_step


def test_a_baseline_that_is_not_there(tmp_path: Path) -> None:
    assert refusal(read_baseline, tmp_path / "nowhere.json").code == "no-file"
