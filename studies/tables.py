"""Tables of docs/studies.md, from the committed results."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from studies import results
from studies.experiments import ARMS, DENSE, EXPERIMENTS, SETS, TEACHER, Experiment
from studies.results import Line
from studies.statistics import Difference, difference

PAGE = Path(__file__).parent.parent / "docs" / "studies.md"
_MARK = re.compile(r"(<!-- table (?P<name>[a-z0-9-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def by_arm(lines: Sequence[Line]) -> dict[str, list[Line]]:
    """The lines of each arm, by seed."""
    found: dict[str, list[Line]] = {}
    for line in sorted(lines, key=lambda one: one["seed"]):
        found.setdefault(line["arm"], []).append(line)
    return found


def percent(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds, of shares."""
    spread = f" ± {np.std(values, ddof=1) * 100:.1f}" if len(values) > 1 else ""
    return f"{np.mean(values) * 100:.1f}%{spread}"


def points(one: Difference) -> str:
    """A difference with its interval."""
    return f"{one.mean:+.1f} ({one.low:+.1f} to {one.high:+.1f})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def arms_table(experiment: Experiment, arms: dict[str, list[Line]]) -> str:
    """Accuracy, cost, and the difference to the first arm, of the arms that there are."""
    there = [name for name in experiment.arms if name in arms]
    rows = []
    for name in there:
        lines = arms[name]
        other = "" if name == there[0] else points(difference(lines, arms[there[0]]))
        kept = [np.mean([line["keep_mean"][stage] for line in lines]) for stage in range(len(lines[0]["keep_mean"]))]
        rows.append(
            [
                f"`{name}`",
                percent([line["accuracy"] for line in lines]),
                f"{np.mean([line['macs_ratio'] for line in lines]):.1%}",
                ", ".join(f"{share:.0%}" for share in kept),
                other,
                str(len(lines)),
            ]
        )
    head = ("arm", "accuracy", "MACs", "kept in each stage", f"points to `{there[0]}`" if there else "", "seeds")
    return _table(head, rows) if rows else ""


def variants_table(arms: dict[str, list[Line]], names: Sequence[str], kinds: Sequence[str]) -> str:
    """Other ways to use the same trained networks, in points to their own thresholds."""
    rows = []
    for name in names:
        for kind in kinds:
            lines = [line for line in arms.get(name, []) if kind in line.get("variants", {})]
            if lines:
                others = [line["variants"][kind] for line in lines]
                less = [(o["accuracy"] - line["accuracy"]) * 100 for o, line in zip(others, lines, strict=True)]
                macs = np.mean([o["macs_ratio"] for o in others])
                rows.append([f"`{name}`", kind, f"{macs:.1%}", f"{np.mean(less):+.2f} ({min(less):+.2f} to {max(less):+.2f})"])
    return _table(("arm", "used as", "MACs", "points to its thresholds (least to most of a seed)"), rows)


def histories_table(arms: dict[str, list[Line]], names: Sequence[str]) -> str:
    """What happens to tokens, stage by stage, in percent of all tokens."""
    there = [name for name in names if any("histories" in line for line in arms.get(name, []))]
    means = {name: _mean_histories(arms[name]) for name in there}
    kinds = sorted({kind for one in means.values() for kind in one}, reverse=True)
    rows = [[kind, *(f"{means[name].get(kind, 0):.1%}" for name in there)] for kind in kinds]
    returned = [f"{sum(s for kind, s in means[name].items() if 'FK' in kind):.1%}" for name in there]
    return _table(("stages", *(f"`{name}`" for name in there)), [*rows, ["returned at least once", *returned]])


def _mean_histories(lines: Sequence[Line]) -> dict[str, float]:
    kinds = {kind for line in lines for kind in line["histories"]}
    return {kind: float(np.mean([line["histories"].get(kind, 0.0) for line in lines])) for kind in kinds}


def groups_table(arms: dict[str, list[Line]], names: Sequence[str], what: str) -> str:
    """`errors` or `attention` before and after approximation, by stage and kind of token, mean over seeds."""
    rows = []
    for name in names:
        lines = [line for line in arms.get(name, []) if line.get(what)]
        places = dict.fromkeys((e["stage"], kind) for line in lines for e in line[what] for kind in e if kind != "stage")
        for stage, kind in sorted(places, key=lambda place: place[0]):
            found = [e[kind] for line in lines for e in line[what] if e["stage"] == stage and kind in e]
            before, after = (np.mean([one[side] for one in found]) for side in ("before", "after"))
            rows.append([f"`{name}`", str(stage), kind, f"{before:.3f}", f"{after:.3f}"])
    return _table(("arm", "stage", "tokens", "before", "after"), rows)


def tables(folder: Path = results.RESULTS) -> dict[str, str]:
    """Name of the place in the page -> table."""
    found = {}
    for name in SETS:
        lines = results.read(results.path_of(name, folder))
        if not lines or name == "digits":
            continue
        arms = by_arm(lines)
        for experiment in EXPERIMENTS.values():
            found[f"{name}-{experiment.name}"] = arms_table(experiment, arms)
        learned = [arm for arm in arms if arm in ARMS and ARMS[arm].selection == "learned"]
        found[f"{name}-counts"] = variants_table(arms, EXPERIMENTS["counts"].arms, ("fixed-0.5", "fixed-0.75", "fixed-0.9"))
        found[f"{name}-reuse"] = histories_table(arms, [*EXPERIMENTS["counts"].arms, "identity-50"])
        found[f"{name}-no-return"] = variants_table(arms, learned, ("no-return", "no-estimate"))
        found[f"{name}-attention"] = groups_table(arms, EXPERIMENTS["attention"].arms, "attention")
        found[f"{name}-errors"] = groups_table(arms, EXPERIMENTS["attention"].arms, "errors")
        found[f"{name}-teachers"] = _teachers(arms)
    return found


def _teachers(arms: dict[str, list[Line]]) -> str:
    rows = [
        [f"`{name}`", percent([line["accuracy"] for line in arms[name]]), str(len(arms[name]))]
        for name in (TEACHER, DENSE)
        if name in arms
    ]
    return _table(("network", "accuracy", "seeds"), rows)


def filled(page: str, found: dict[str, str]) -> str:
    """The page with its tables made anew.

    Raises:
        KeyError: a place names no table.
    """
    return _MARK.sub(lambda match: f"{match[1]}{found[match['name']]}{match[3]}", page)
