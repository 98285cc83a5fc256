"""Tables and figures against values worked out by hand."""

import re
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from studies.experiments import EXPERIMENTS
from studies.figures import budget_figure, depth_figure, hardware_figure
from studies.measuring import packed
from studies.tables import arms_table, equal_latency_table, groups_table, histories_table, percent, variants_table


def row(arm: str, speedup: float, accuracy: float, form: str = "openvino", batch: int = 1) -> dict[str, Any]:
    return {"arm": arm, "form": form, "batch": batch, "speedup": speedup, "accuracy": accuracy}


def test_at_the_same_latency_tofe_lies_between_its_budgets() -> None:
    rows = [
        row("bottleneck-50", 2.0, 0.50),
        row("bottleneck-70", 1.5, 0.54),
        row("discard-50", 1.75, 0.50),  # half-way between them, where ToFe has 52%
        row("evit-50", 1.4, 0.55),  # slower than every ToFe
        row("discard-50", 1.6, 0.5, batch=8),  # no curve there
    ]
    lines = equal_latency_table({"rows": rows}).splitlines()
    assert lines[2:] == ["| `discard-50` | openvino | 1 | 1.75 | 50.0% | 52.0% | -2.0 |"]


def test_without_a_curve_there_is_no_table() -> None:
    assert equal_latency_table({"rows": [row("bottleneck-50", 2.0, 0.5), row("discard-50", 2.0, 0.5)]}) == ""


def test_percent_is_of_seeds() -> None:
    assert percent([0.5, 0.52]) == "51.0% ± 1.4"
    assert percent([0.5]) == "50.0%"


def test_variants_are_taken_from_the_same_seed() -> None:
    lines = []
    for seed, (own, other) in enumerate([(50, 40), (60, 58)]):
        variant = {**line("", 0, range(other)), "macs_ratio": 0.4 + 0.2 * seed}
        lines.append({**line("bottleneck-50", seed, range(own)), "variants": {"no-return": variant}})
    table = variants_table({"bottleneck-50": lines}, ["bottleneck-50"], ["no-return"])
    found = re.search(r"`bottleneck-50` \| no-return \| 50.0% \| -6.0 \(([-+\d.]+) to ([-+\d.]+)\) \| 2 \|", table)
    assert found is not None
    assert -16 < float(found[1]) < -6 < float(found[2]) < 1


def line(arm: str, seed: int, right: range) -> dict[str, Any]:
    """Of 100 images, those that are right."""
    answers = np.isin(np.arange(100), right)
    own = {"arm": arm, "seed": seed, "images": 100, "right": packed(answers), "accuracy": float(answers.mean())}
    return {**own, "macs_ratio": 0.5, "keep_mean": [0.5]}


def rows_of(name: str, arms: dict[str, list[dict[str, Any]]]) -> tuple[str, dict[str, list[str]]]:
    """Head of the column of differences, and the cells of each arm."""
    head, _, *rows = arms_table(EXPERIMENTS[name], arms).splitlines()
    cells = [[cell.strip() for cell in one.split("|")[1:-1]] for one in rows]
    return head.split("|")[5].strip(), {one[0].strip("`"): one for one in cells}


def test_an_arm_is_compared_with_tofe_at_its_own_budget() -> None:
    names = ("bottleneck-70", "discard-70", "bottleneck-50", "discard-50", "discard-35")
    arms = {name: [line(name, 0, range(right))] for name, right in zip(names, (80, 78, 60, 65, 40), strict=True)}
    head, rows = rows_of("budget", arms)
    assert head == "points to `bottleneck` with the same budget"
    assert {name: one[4].split(" ")[0] for name, one in rows.items()} == {
        **dict.fromkeys(("bottleneck-70", "bottleneck-50", "discard-35"), ""),
        "discard-70": "-2.0",
        "discard-50": "+5.0",
    }


def test_variants_are_compared_with_one_of_the_same_counts() -> None:
    used = {kind: {**line("", 0, range(right)), "counts": []} for kind, right in (("returning", 40), ("no-return", 37))}
    lines = {"bottleneck-50": [{**line("bottleneck-50", 0, range(60)), "variants": used}]}
    head, _, row = variants_table(lines, ["bottleneck-50"], ["no-return"], "returning").splitlines()
    assert "points to returning" in head
    assert "| no-return | 50.0% | -3.0 (" in row


def test_an_estimate_is_compared_with_none_over_as_many_blocks() -> None:
    names = ("bottleneck-2-blocks", "identity-2-blocks", "bottleneck-9-blocks", "identity-9-blocks")
    arms = {name: [line(name, 0, range(right))] for name, right in zip(names, (80, 70, 60, 59), strict=True)}
    head, rows = rows_of("depth", arms)
    assert head == "points to `identity` over as many blocks"
    assert [rows[name][4].split(" ")[0] for name in names] == ["+10.0", "", "+1.0", ""]


def test_where_the_reference_is_missing_nothing_else_takes_its_place() -> None:
    arms = {"identity-50": [line("identity-50", 0, range(9))], "block-50": [line("block-50", 0, range(8))]}
    head, rows = rows_of("approximation", arms)
    assert head == "points to `bottleneck-50` (`identity`: to `bottleneck-alone-50`)"
    assert [one[4] for one in rows.values()] == ["", ""]
    arms["bottleneck-50"] = [line("bottleneck-50", 1, range(7))]  # of no seed that the others have
    assert [one[4] for one in rows_of("approximation", arms)[1].values()] == ["", "", ""]


def test_returned_tokens_were_frozen_before_they_were_kept() -> None:
    lines = [{"histories": {"KKK": 0.5, "KFK": 0.25, "FFK": 0.125, "KFF": 0.125}}]
    table = histories_table({"bottleneck-50": lines}, ["bottleneck-50"])
    assert "| returned at least once | 37.5% |" in table


def test_groups_are_means_over_seeds() -> None:
    lines = [
        {"errors": [{"stage": 1, "object": {"tokens": 9, "before": 0.5, "after": 0.2}}]},
        {"errors": [{"stage": 1, "object": {"tokens": 1, "before": 0.7, "after": 0.4}}]},
    ]
    assert "| `x` | 1 | object | 0.600 | 0.300 |" in groups_table({"x": lines}, ["x"], "errors")


def _curves(figure: Figure) -> dict[str, tuple[list[float], list[float]]]:
    axes = figure.axes[0]
    return {
        str(one.get_label()): tuple(np.asarray(one.lines[0].get_data()).tolist())  # type: ignore[misc]
        for one in axes.containers
    }


def _require_whole_words(figure: Figure) -> None:
    figure.draw_without_rendering()
    for axes in figure.axes:
        legend = axes.get_legend()
        assert legend is not None
        for words in (axes.xaxis.label, axes.yaxis.label, *axes.texts, *legend.get_texts()):
            box = words.get_window_extent()
            assert min(box.x0, box.y0) >= 0, words
            assert box.x1 <= figure.bbox.x1, words
            assert box.y1 <= figure.bbox.y1, words


def test_the_budget_figure_draws_what_was_measured() -> None:
    arms = {
        f"bottleneck-{budget}": [{"macs_ratio": budget / 100, "accuracy": accuracy, "seed": 0}]
        for budget, accuracy in ((70, 0.6), (50, 0.55), (35, 0.4))
    }
    figure = budget_figure(arms)
    assert figure is not None
    across, up = _curves(figure)["ToFe (bottleneck)"]
    assert across == pytest.approx([0.7, 0.5, 0.35])
    assert up == pytest.approx([0.6, 0.55, 0.4])
    assert budget_figure({"bottleneck-50": arms["bottleneck-50"]}) is None
    _require_whole_words(figure)


def test_the_depth_figure_draws_errors_before_and_after_the_estimate() -> None:
    arms = {
        f"{kind}-{blocks}-blocks": [
            {"errors": [{"stage": 0, "all": {"before": 0.1 * blocks, "after": after * blocks}}], "accuracy": 0.5}
        ]
        for kind, after in (("bottleneck", 0.05), ("identity", 0.1))
        for blocks in (2, 4, 6, 9)
    }
    figure = depth_figure(arms)
    assert figure is not None
    across, up = _curves(figure)["bottleneck, fitted alone"]
    assert across == [2, 4, 6, 9]
    assert up == pytest.approx([0.1, 0.2, 0.3, 0.45])
    before = [one for one in figure.axes[0].lines if str(one.get_label()) == "the same tokens, as they were frozen"]
    assert [one.get_ydata().tolist() for one in before] == [pytest.approx([0.2, 0.4, 0.6, 0.9])]
    _require_whole_words(figure)


def test_the_hardware_figure_has_the_rows_of_its_batch() -> None:
    document = {"rows": [row("discard-50", 1.75, 0.5), row("discard-50", 3.0, 0.5, batch=8)]}
    figure = hardware_figure(document, batch=1)
    assert figure is not None
    points = [tuple(line.get_xydata()[0]) for line in figure.axes[0].lines if str(line.get_label()) == "openvino"]
    assert points == [(1.75, 0.5)]
    _require_whole_words(figure)
