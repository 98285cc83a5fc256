"""How a training run shows on its page: its pace, and how it ended."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.runs import OPTIONS, RECIPE
from tofe_export.checkpoints.checkpoint import load
from tofe_export.documents.history import Pace, Stretch
from tofe_export.files.names import STEPS
from tofe_export.page.build import build_report
from tofe_export.page.folder import read_folder
from tofe_export.page.training_pace import ending_facts, pace_chart, pace_table
from tofe_export.page.wording import duration, per_second, percent
from tofe_export.training import recorder, trainer


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run with a line per step."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder, "_EVERY_S", 0.0)
        trainer.train(RECIPE, OPTIONS, folder)
    return folder


def pace(*stretches: dict[str, Any]) -> Pace:
    return Pace(tuple(Stretch.model_validate({"epoch": 1, "step": 1, **one}) for one in stretches))


def cells(text: str) -> list[list[str]]:
    """Of the table of pace, row by row."""
    table = text[text.index('aria-label="Speed of training"') :].partition("</table>")[0]
    rows = re.findall(r"<tr.*?</tr>", table)
    return [[re.sub(r"<.*?>", " ", cell).strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in rows]


def test_a_real_run_shows_how_fast_it_was_and_how_it_ended(trained: Path, tmp_path: Path) -> None:
    text = build_report(trained, tmp_path / "page.html", images=0, figures=tmp_path).read_text()
    lines = [json.loads(line) for line in (trained / STEPS).read_text().splitlines()]
    head, dense, tofe = cells(text)
    assert head == ["phase", "images per s", "waiting for images", "training time"], "no GPU, no memory of one"
    for row, phase in ((dense, "dense"), (tofe, "tofe")):
        own = [line for line in lines if line["phase"] == phase]
        rates, waits = (sorted(line[name] for line in own) for name in ("images_per_s", "wait_share"))
        assert row[1] == per_second((rates[1] + rates[2]) / 2)
        assert row[2] == percent((waits[1] + waits[2]) / 2)
        assert row[3] == duration(sum(line["seconds"] for line in own))
    ElementTree.parse(tmp_path / "training-pace.svg")
    assert (tmp_path / "training-pace.png").stat().st_size > 1000
    metrics = load(trained / "ckpt.pth").metrics
    facts = dict(ending_facts(metrics))
    assert (
        facts["Accuracy"] == f"{percent(metrics['val_accuracy'])}; dense backbone {percent(metrics['dense_accuracy'])}"
    )
    assert facts["Cost (MACs)"].startswith(percent(metrics["macs_ratio"]))
    assert facts["Cost (MACs)"].endswith("budget 50\u202f%")
    assert facts["Tokens kept per stage"].count("±") == 3
    assert all(f"<dd>{value}</dd>" in text for value in facts.values())


def test_a_damaged_log_of_steps_is_a_note(trained: Path, tmp_path: Path) -> None:
    for name in ("ckpt.pth", "metrics.jsonl"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    (tmp_path / STEPS).write_bytes(b"\xff\n{}\n")
    text = build_report(tmp_path, images=0).read_text()
    assert "with a budget of 50\u202f%" in text, "the checkpoint says it where there is no state"
    assert "How fast training was is omitted." in text
    assert "Outdated" not in text
    assert "Speed of training" not in text


def test_a_run_in_its_first_epoch_has_a_page(tmp_path: Path) -> None:
    (tmp_path / STEPS).write_text('{"phase": "tofe", "epoch": 1, "step": 3, "seconds": 9, "images_per_s": 41.5}\n')
    text = build_report(tmp_path).read_text()
    assert cells(text) == [["phase", "images per s", "training time"], ["ToFe", "41.5", "9.00\u202fs"]]
    assert "There is no training log here." not in text
    assert read_folder(tmp_path).pace is not None


def test_peak_memory_is_the_largest() -> None:
    table = pace_table(pace(*({"phase": "tofe", "gpu_memory_gib": memory} for memory in (3.0, 7.25, 5.0))))
    assert table is not None
    assert table.head == ("phase", "GPU peak\nGiB")
    assert [row.values for _, rows in table.groups for row in rows] == [["7.25"]]


@pytest.mark.parametrize(
    ("seconds", "unit", "end"), [(60, "seconds", 60), (3600, "minutes", 60), (86400, "hours", 24)], ids=str
)
def test_a_long_run_is_a_line_of_few_points(seconds: float, unit: str, end: float) -> None:
    lines = [{"phase": phase, "seconds": seconds / 8000, "images_per_s": 100.0 + number % 7}
             for phase in ("dense", "tofe") for number in range(4000)]  # fmt: skip
    chart = pace_chart(pace(*lines))
    assert chart is not None
    (axes,) = chart.figure().axes
    assert axes.get_xlabel() == f"{unit} of training"
    for line in axes.lines:
        assert 100 < len(line.get_xdata()) <= 150
        assert all(100 <= value <= 106 for value in line.get_ydata())
    assert axes.lines[0].get_xdata()[-1] < axes.lines[1].get_xdata()[0] < axes.lines[1].get_xdata()[-1] <= end
    assert chart.text == "dense backbone: median 103; ToFe: median 103."


def test_nothing_is_drawn_of_nothing() -> None:
    nothing = pace({"phase": "dense"})
    assert (pace_chart(nothing), pace_table(nothing)) == (None, None)
    assert pace_chart(pace({"phase": "dense", "images_per_s": 5.0})) is None, "at no known time"
    assert ending_facts({}) == ending_facts({"val_accuracy": "high", "keep_mean": [None]}) == []


AMOUNTS = st.none() | st.floats(0, 1e11)
LINES = st.fixed_dictionaries(
    {
        "phase": st.sampled_from(["dense", "tofe"]),
        **dict.fromkeys(("time", "seconds", "gpu_memory_gib"), AMOUNTS),
        "images_per_s": st.none() | st.floats(1e-6, 9e8),
        "wait_share": st.none() | st.floats(0, 1),
    }
)


@given(st.lists(LINES, max_size=6))
def test_any_pace_has_its_chart_and_its_table(lines: list[dict[str, Any]]) -> None:
    chart, table = pace_chart(pace(*lines)), pace_table(pace(*lines))
    if chart is not None:
        ElementTree.fromstring(chart.svg())
    if table is not None:
        (rows,) = [rows for _, rows in table.groups]
        assert {len(row.values) for row in rows} == {len(table.head) - 1}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0123, "0.0123 s"),
        (119.0, "119 s"),
        (120, "2.00 min"),
        (7199, "120 min"),
        (12120, "3.37 h"),
        (3600 * 75.5, "75.5 h"),
    ],
)
def test_durations_in_words(seconds: float, text: str) -> None:
    assert duration(seconds).replace("\u202f", " ") == text
