"""The words, the headline and the charts: each says what is there and claims no more."""

import re
from pathlib import Path
from typing import Any

import pytest

from tofe_export.documents.benchmark import Benchmark, BenchRow, BenchSettings
from tofe_export.documents.history import Epoch, History
from tofe_export.documents.verification import LogitsDrift, Verification
from tofe_export.page import speed as page_speed
from tofe_export.page import wording
from tofe_export.page.headline import headline, quoted_row
from tofe_export.page.speed import bench_table, latency_chart, speed_chart
from tofe_export.page.training_charts import training_charts

EPOCHS = (
    *({"phase": "dense", "epoch": n, "val_accuracy": 0.1 * n} for n in (1, 2, 3)),
    *({"phase": "tofe", "epoch": n, "val_accuracy": 0.3 + 0.1 * n, "keep_mean": [0.7, 0.4, 0.2],
       "keep_std": [0.1] * 3, "macs_ratio": 0.6} for n in (1, 2)),
)  # fmt: skip


def history(*epochs: dict[str, Any]) -> History:
    return History(tuple(map(Epoch.model_validate, epochs)))


def row(
    speedup: float,
    low: float | None = None,
    high: float | None = None,
    batch: int = 1,
    dense: bool = False,
    name: str = "m",
) -> BenchRow:
    return BenchRow(
        name=name,
        backend="onnxruntime",
        precision="fp32",
        batch=batch,
        p50_ms=1.0,
        p90_ms=1.1,
        p99_ms=1.2,
        images_per_s=1000.0,
        gmacs=0.5,
        speedup=speedup,
        speedup_low=low,
        speedup_high=high,
        realised_fraction=1.0 if dense else speedup / 2,
        dense=dense,
    )


def bench(*rows: BenchRow) -> Benchmark:
    return Benchmark(rows=(row(1.0, dense=True), *rows))


def verified(passed: bool = True, agreement: float = 1.0) -> tuple[Verification, ...]:
    drift = LogitsDrift(max_abs=1e-6, mean_abs=1e-7, cosine_min=1.0)
    failures = () if passed else ("Stage 0 went astray.",)
    one = Verification(
        passed=passed,
        model="m",
        samples=200,
        top1_agreement=agreement,
        logits=drift,
        stages=(),
        failures=failures,
    )
    return (one,)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (1.0, "100 %"),
        (0.99999, "> 99.9 %"),
        (0.5, "50 %"),
        (0.1234, "12.3 %"),
        (0.0, "0 %"),
        (1e-5, "< 0.1 %"),
        (None, "–"),
    ],
)
def test_a_share_never_rounds_to_all_or_nothing(share: float | None, text: str) -> None:
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
        (verified(), bench(row(1.9, 1.8, 2.0)), "good", "At batch 1: faster than the dense backbone (1.90× as fast)."),
        (verified(), bench(row(0.8, 0.7, 0.9)), "bad", "At batch 1: slower than the dense backbone (0.80× as fast)."),
        (verified(), bench(row(1.02, 0.9, 1.1)), "bad", "not measurably faster"),
        (verified(passed=False), bench(row(1.9)), "bad", "Stage 0 went astray."),
        ((), bench(row(1.9)), "open", "Not yet compared"),
        (verified(), None, "open", "Not yet timed"),
        (verified(agreement=0.995), bench(row(1.9)), "good", "99.5"),
    ],
)
def test_the_headline(parity: tuple[Verification, ...], speed: Benchmark | None, tone: str, phrase: str) -> None:
    line, actual = headline(parity, speed)
    assert actual == tone
    assert phrase in line


def test_speed_is_quoted_of_what_was_compared_and_by_name() -> None:
    fast = row(3.0, 2.9, 3.1, name="other")
    line, tone = headline(verified(), bench(row(1.9, 1.8, 2.0), fast))
    assert "m, at batch 1: faster than the dense backbone (1.90× as fast)" in line
    assert tone == "good"
    line, tone = headline(verified(), bench(fast))
    assert "other, at batch 1: faster than the dense backbone (3.00× as fast)" in line
    assert "The model that was timed is not the one that was compared." in line
    assert tone == "open"


def test_the_smallest_batch_is_quoted_though_others_are_faster() -> None:
    quoted = quoted_row((), bench(row(3.0, batch=32), row(1.2, batch=1)))
    assert quoted is not None
    assert quoted.speedup == 1.2


def test_charts_are_inline_themed_and_the_same_each_time() -> None:
    speed = speed_chart(bench(row(1.9, 1.8, 2.0)))
    assert speed is not None
    charts = [*training_charts(history(*EPOCHS), 0.5), speed]
    drawn = [chart.svg() for chart in charts]
    assert drawn == [chart.svg() for chart in charts]
    assert len(drawn) == 4
    ids: list[str] = []
    for svg in drawn:
        assert svg.startswith("<svg ")
        assert "<!DOCTYPE" not in svg
        assert "<text" in svg, "text stays text"
        assert set(re.findall(r"(?:fill|stroke): (#\w+)", svg)) == set(), "every color is the page's"
        targets = re.findall(r'\bid="([^"]+)"', svg)
        assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg)) <= set(targets), "every reference has its target"
        ids += targets
    assert len(ids) == len(set(ids)), "charts in one page must not share ids"
    assert "budget of 50" in charts[2].text


def test_charts_without_numbers_are_omitted(tmp_path: Path) -> None:
    assert training_charts(history({"phase": "dense", "epoch": 1}), None) == []
    assert speed_chart(bench()) is None


def test_what_was_not_measured_is_not_on_the_page() -> None:
    few = {"p90_ms": None, "p99_ms": None}
    timed = Benchmark(rows=(row(1.0, dense=True).replaced(**few), row(1.9).replaced(**few)))
    table = bench_table(timed)
    assert not {"p90\nms", "p99\nms", "efficiency"} & set(table.head)
    assert all(len(line.values) == len(table.head) - 1 for _, lines in table.groups for line in lines)
    chart = latency_chart(timed)
    assert chart is not None
    assert chart.title == "Latency: p50"
    assert "m at batch 1: p50 1.00 ms" in chart.text
    assert not page_speed.has_efficiency(timed)
    full = Benchmark(rows=(row(1.0, dense=True), row(1.9).replaced(efficiency=0.5, p99_ms=None)))
    assert {"p90\nms", "p99\nms", "efficiency"} <= set(bench_table(full).head)
    assert page_speed.has_efficiency(full)


def test_how_the_interval_is_meant() -> None:
    def words(**settings: int) -> str:
        timed = bench(row(1.9, 1.8, 2.0)).replaced(settings=BenchSettings(**settings))
        return f"{page_speed.method(timed)} {page_speed.speedup(timed)} {page_speed.machine(timed)}"

    assert "in turn in one process" in words(rounds=30)
    assert "over the rounds of one process" in words(rounds=30)
    assert "One process has no interval" in words(rounds=5, processes=1, warm_up_calls=2)
    several = words(rounds=5, processes=5, warm_up_calls=2)
    assert "after 2 calls that are not measured" in several
    assert "the mean of 5 processes, with an interval over processes" in several
    assert "5 rounds in each of 5 processes" in several
