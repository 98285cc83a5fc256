"""The gate fails on a lost speed-up, on nothing else, and refuses files that cannot be a baseline."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tofe_export.artifacts.machine import describe_machine
from tofe_export.bench.baseline import Baseline, failures, judge, key_of, parse_share, read_baseline
from tofe_export.errors import InputError


def row(speedup: float, spread: float = 0.01, batch: int = 1, **fields: Any) -> dict[str, Any]:
    return {
        "name": "model.onnx",
        "backend": "onnxruntime",
        "precision": "fp32",
        "batch": batch,
        "speedup": speedup,
        "speedup_low": speedup - spread,
        "speedup_high": speedup + spread,
        "gmacs": 2.0,
        "p50_ms": 10.0,
        **fields,
    }


DENSE = row(1.0, 0.0, name="dense")


def document(*rows: dict[str, Any], **fields: Any) -> dict[str, Any]:
    made = {
        "schema": "tofe-export/bench/1",
        "machine": {"processor": "a", "gpu": None},
        "settings": {"threads": 2},
        "rows": [DENSE, *rows],
    }
    return made | fields


def recorded(tmp_path: Path, *rows: dict[str, Any], **fields: Any) -> Baseline:
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps(document(*rows, **fields)))
    return read_baseline(path)


def test_a_held_speed_up_passes_whatever_the_times(tmp_path: Path) -> None:
    found = judge(document(row(1.9, p50_ms=500.0)), recorded(tmp_path, row(1.95)), 0.05)
    assert found["passed"]
    assert [entry["verdict"] for entry in found["rows"]] == ["held"], "the dense row is not judged"
    assert found["notes"] == []
    assert failures(found) == []


def test_a_lost_speed_up_fails_and_says_by_how_much(tmp_path: Path) -> None:
    found = judge(document(row(1.7)), recorded(tmp_path, row(2.0)), 0.05)
    assert not found["passed"]
    (sentence,) = failures(found)
    assert "model.onnx (onnxruntime, fp32) at batch 1 is 1.70 times as fast" in sentence
    assert "was 2.00: 15.0% less, where 5.0% is allowed" in sentence


def test_noise_alone_does_not_fail(tmp_path: Path) -> None:
    found = judge(document(row(1.8, spread=0.3)), recorded(tmp_path, row(2.0)), 0.05)
    assert found["passed"]
    assert found["rows"][0]["verdict"] == "unsure"


@given(old=st.floats(0.2, 50), factor=st.floats(0.1, 3), limit=st.floats(0, 0.9))
def test_the_limit_is_a_share_of_the_old_speed_up(old: float, factor: float, limit: float) -> None:
    new = row(old * factor, spread=0.0, name="x")
    baseline = Baseline(Path("b"), {key_of(new): row(old, name="x")}, {"processor": "a", "gpu": None}, 2)
    found = judge(document({**new, "speedup_low": old * factor * 0.999}), baseline, limit)
    change = new["speedup"] / old - 1
    assert found["passed"] == (not change < -limit or not new["speedup_high"] < old)


def test_what_was_not_timed_fails_and_what_is_new_is_noted(tmp_path: Path) -> None:
    found = judge(document(row(2.0, batch=8)), recorded(tmp_path, row(2.0)), 0.05)
    assert not found["passed"]
    assert failures(found) == ["model.onnx (onnxruntime, fp32) at batch 1 is in baseline.json, but was not timed now."]
    assert any("at batch 8 is not in the baseline" in note for note in found["notes"])


def test_another_machine_threads_or_model_is_noted(tmp_path: Path) -> None:
    old = recorded(tmp_path, row(2.0, gmacs=1.0), machine={"processor": "b"}, settings={"threads": 16})
    notes = " ".join(judge(document(row(2.0)), old, 0.05)["notes"])
    assert "another processor (b, now a)" in notes
    assert "with 16 threads" in notes
    assert "another model" in notes


def test_another_gpu_is_noted_by_the_name_that_bench_records(tmp_path: Path) -> None:
    assert "gpu" in describe_machine(), "what is compared is what is recorded"
    here = {**describe_machine(), "gpu": "NVIDIA H200"}
    old = recorded(tmp_path, row(2.0), machine={**here, "gpu": "NVIDIA A100"})
    (note,) = judge(document(row(2.0), machine=here), old, 0.05)["notes"]
    assert "another gpu (NVIDIA A100, now NVIDIA H200)" in note


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("0.05", 0.05), (" 0 ", 0.0), ("12.5 %", 0.125)])
def test_shares(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "%", "five", "-1%", "100%", "5", "nan", "inf%"])
def test_nonsense_shares_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="max-regression"):
        parse_share(text)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"schema": "tofe-export/verify/1", "rows": []}',
        '{"schema": "tofe-export/bench/1", "rows": 3}',
        '{"schema": "tofe-export/bench/1", "rows": [3]}',
        json.dumps(document()),
        json.dumps(document({**row(2.0), "speedup": None})),
        json.dumps(document({**row(2.0), "batch": True})),
        json.dumps(document(row(-2.0))),
    ],
)
def test_files_that_are_no_baseline_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "baseline.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"baseline\.json"):
        read_baseline(path)
    with pytest.raises(InputError):
        read_baseline(tmp_path / "nowhere.json")
