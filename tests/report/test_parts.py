"""The training log, the words and the charts: each says what is there and claims no more."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from tofe_export.errors import InputError
from tofe_export.report import wording
from tofe_export.report.charts import training_charts
from tofe_export.report.documents import Benchmark, BenchRow
from tofe_export.report.drawing import unique_ids
from tofe_export.report.history import DENSE, TOFE, read_history
from tofe_export.report.speed_charts import speed_chart
from tofe_export.report.verdict import quoted, verdict
from tofe_export.report.verification import Drift, Evidence, Verification
from tofe_export.training.state import write_metrics

DENSE_EPOCHS = [{"phase": "dense", "epoch": n, "accuracy": 0.1 * n, "val_accuracy": 0.1 * n} for n in (1, 2, 3)]
TOFE_EPOCHS = [
    {"phase": "tofe", "epoch": n, "val_accuracy": 0.3 + 0.1 * n, "keep_mean": [0.7, 0.4, 0.2], "keep_std": [0.1] * 3,
     "macs_ratio": 0.6, "budget": 0.0123}
    for n in (1, 2)
]  # fmt: skip


def log(folder: Path, text: str) -> Path:
    path = folder / "metrics.jsonl"
    path.write_text(text)
    return path


def row(
    speedup: float, low: float | None = None, high: float | None = None, batch: int = 1, dense: bool = False
) -> BenchRow:
    share = 1.0 if dense else speedup / 2
    return BenchRow("m", "onnxruntime", "fp32", batch, 1.0, 1.1, 1.2, 1000.0, 0.5, speedup, low, high, share)


def bench(*rows: BenchRow) -> Benchmark:
    return Benchmark((row(1.0, dense=True), *rows), {}, {}, {})


def verified(passed: bool = True, agreement: float = 1.0) -> Verification:
    drift = Drift(1e-6, 1e-7, 1.0)
    failures = () if passed else ("Stage 0 went astray.",)
    return Verification(passed, "m", "c", "digits", 200, agreement, None, None, drift, drift, (), failures)


def test_the_log_of_the_trainer_is_read(tmp_path: Path) -> None:
    write_metrics(tmp_path, [*DENSE_EPOCHS, *TOFE_EPOCHS])
    history = read_history(tmp_path / "metrics.jsonl")
    assert [place for place, _ in history.phase(TOFE)] == [4, 5]
    assert history.final_accuracy(DENSE) == pytest.approx(0.3)
    assert history.final_accuracy(TOFE) == pytest.approx(0.5)
    assert history.phase(TOFE)[0][1].keep_mean == (0.7, 0.4, 0.2)
    assert history.budget is None, "the log's budget is a part of the loss, not what was asked for"


def test_a_torn_last_line_is_what_a_killed_run_leaves(tmp_path: Path) -> None:
    whole = "\n".join(map(json.dumps, DENSE_EPOCHS))
    assert len(read_history(log(tmp_path, whole + '\n{"phase": "de')).epochs) == 3
    with pytest.raises(InputError, match="Line 2"):
        read_history(log(tmp_path, f"{json.dumps(DENSE_EPOCHS[0])}\nnot JSON\n{json.dumps(DENSE_EPOCHS[1])}\n"))


def test_an_epoch_that_ran_twice_counts_once(tmp_path: Path) -> None:
    again = {**DENSE_EPOCHS[2], "val_accuracy": 0.9}
    history = read_history(log(tmp_path, "\n".join(map(json.dumps, [*DENSE_EPOCHS, again]))))
    assert len(history.epochs) == 3
    assert history.final_accuracy(DENSE) == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("share", "text"),
    [(1.0, "100 %"), (0.99999, "> 99.9 %"), (0.5, "50 %"), (0.1234, "12.3 %"), (0.0, "0 %"), (1e-5, "< 0.1 %")],
)
def test_a_share_never_rounds_to_all_or_nothing(share: float, text: str) -> None:
    assert wording.percent(share).replace("\u202f", " ") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1.23e-6, "1.2 × 10⁻⁶"), (0.5, "0.500"), (float("inf"), "not finite"), (None, "–")],
)
def test_differences_in_words(value: float | None, text: str) -> None:
    assert wording.difference(value).replace("\u202f", " ") == text


@pytest.mark.parametrize(
    ("parity", "speed", "tone", "phrase"),
    [
        (verified(), bench(row(1.9, 1.8, 2.0)), "good", "1.90× as fast"),
        (verified(), bench(row(0.8, 0.7, 0.9)), "bad", "slower than the dense"),
        (verified(), bench(row(1.02, 0.9, 1.1)), "bad", "cannot be told"),
        (verified(passed=False), bench(row(1.9)), "bad", "Stage 0 went astray."),
        (None, bench(row(1.9)), "open", "Not yet compared"),
        (verified(), None, "open", "Not yet timed"),
        (verified(agreement=0.995), bench(row(1.9)), "good", "99.5"),
    ],
)
def test_the_verdict(parity: Verification | None, speed: Benchmark | None, tone: str, phrase: str) -> None:
    line, found = verdict(Evidence((parity,)) if parity else None, speed)
    assert found == tone
    assert phrase in line


def test_speed_is_quoted_of_what_was_compared_and_by_name() -> None:
    fast = dataclasses.replace(row(3.0, 2.9, 3.1), name="other")
    line, tone = verdict(Evidence((verified(),)), bench(row(1.9, 1.8, 2.0), fast))
    assert "m, at batch 1: 1.90× as fast" in line
    assert tone == "good"
    line, tone = verdict(Evidence((verified(),)), bench(fast))
    assert "other, at batch 1: 3.00× as fast" in line
    assert "What was timed is not what was compared." in line
    assert tone == "open"


def test_the_smallest_batch_is_quoted_though_others_are_faster() -> None:
    found = quoted(None, bench(row(3.0, batch=32), row(1.2, batch=1)))
    assert found is not None
    assert found.speedup == 1.2


def test_charts_are_inline_themed_and_the_same_each_time(tmp_path: Path) -> None:
    write_metrics(tmp_path, [*DENSE_EPOCHS, *TOFE_EPOCHS])
    history = read_history(tmp_path / "metrics.jsonl")
    speed = speed_chart(bench(row(1.9, 1.8, 2.0)))
    assert speed is not None
    charts = unique_ids([*training_charts(history, 0.5), speed])
    again = unique_ids([*training_charts(history, 0.5), speed])
    assert charts == again
    assert len(charts) == 4
    ids: list[str] = []
    for chart in charts:
        assert chart.svg.startswith("<svg ")
        assert "<!DOCTYPE" not in chart.svg
        assert "<text" in chart.svg, "text stays text"
        assert set(re.findall(r"(?:fill|stroke): (#\w+)", chart.svg)) == set(), "every colour is the page's"
        mine = re.findall(r'\bid="([^"]+)"', chart.svg)
        assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', chart.svg)) <= set(mine), "every reference has its target"
        ids += mine
    assert len(ids) == len(set(ids)), "charts in one page must not share ids"
    assert "budget of 50" in charts[2].text


def test_charts_without_numbers_are_left_out(tmp_path: Path) -> None:
    write_metrics(tmp_path, [{"phase": "dense", "epoch": 1, "loss": 2.0}])
    assert training_charts(read_history(tmp_path / "metrics.jsonl"), None) == []
    assert speed_chart(Benchmark((row(1.0, dense=True),), {}, {}, {})) is None
