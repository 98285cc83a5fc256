"""Tables of docs/studies.md, from the committed results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from studies.experiments import ARMS, DENSE, EXPERIMENTS, LEARNED, TEACHER, Experiment
from studies.measuring import QUANTILES
from studies.results import Line
from studies.statistics import Difference, difference


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
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def arms_table(experiment: Experiment, arms: dict[str, list[Line]]) -> str:
    """Accuracy, cost, and the difference to the arm that each is compared with, of the arms that there are."""
    rows = []
    for name in (name for name in experiment.arms if name in arms):
        lines, reference = arms[name], experiment.reference(name)
        others = [] if reference == name else _of_same_seeds(arms.get(reference, []), lines)
        other = points(difference(lines, others)) if others else ""
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
    compared = experiment.compared or f"`{experiment.arms[0]}`"
    return _table(("arm", "accuracy", "MACs", "kept in each stage", f"points to {compared}", "seeds"), rows)


def _of_same_seeds(lines: Sequence[Line], others: Sequence[Line]) -> list[Line]:
    seeds = {line["seed"] for line in others}
    return [line for line in lines if line["seed"] in seeds]


def variants_table(arms: dict[str, list[Line]], names: Sequence[str], kinds: Sequence[str], to: str = "") -> str:
    """Other ways to use the same trained networks, in points to the way `to`, or to their own thresholds."""
    rows = []
    for name in names:
        for kind in kinds:
            lines = [line for line in arms.get(name, []) if kind in line.get("variants", {})]
            if lines:
                others, own = _used_as(lines, kind), _used_as(lines, to) if to else lines
                macs = np.mean([other["macs_ratio"] for other in others])
                rows.append([f"`{name}`", kind, f"{macs:.1%}", points(difference(others, own)), str(len(lines))])
    return _table(("arm", "used as", "MACs", f"points to {to or 'its thresholds'}", "seeds"), rows)


def _used_as(lines: Sequence[Line], kind: str) -> list[Line]:
    return [{**line["variants"][kind], "seed": line["seed"]} for line in lines]


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
        places = dict.fromkeys(
            (e["stage"], kind) for line in lines for e in line[what] for kind in e if kind != "stage"
        )
        for stage, kind in sorted(places, key=lambda place: place[0]):
            found = [e[kind] for line in lines for e in line[what] if e["stage"] == stage and kind in e]
            before, after = (np.mean([one[side] for one in found]) for side in ("before", "after"))
            rows.append([f"`{name}`", str(stage), kind, f"{before:.3f}", f"{after:.3f}"])
    return _table(("arm", "stage", "tokens", "before", "after"), rows)


def tables(arms: dict[str, list[Line]]) -> dict[str, str]:
    """Name of a table -> Markdown, "" where nothing is there for it yet."""
    learned = [name for name in arms if name in ARMS and ARMS[name].selection == LEARNED]
    reused = [name for name in (*EXPERIMENTS["counts"].arms, "identity-50") if name in arms]
    compared = ("approximation", "budget", "selector", "depth")
    found = {name: arms_table(EXPERIMENTS[name], arms) for name in compared}
    fixed = [f"fixed-{quantile:g}" for quantile in QUANTILES]
    found |= {
        "counts": variants_table(arms, EXPERIMENTS["counts"].arms, fixed),
        "reuse": histories_table(arms, reused) if reused else "",
        "no-return": variants_table(arms, learned, ("no-return", "no-estimate"), "returning"),
        "attention": groups_table(arms, EXPERIMENTS["attention"].arms, "attention"),
        "errors": groups_table(arms, EXPERIMENTS["attention"].arms, "errors"),
        "teachers": _teachers(arms),
    }
    return found


def hardware_table(document: dict[str, Any]) -> str:
    """Accuracy and speed-up of every arm and form; speed-ups are over the dense network in the same form."""
    rows = [
        [
            f"`{row['arm']}`",
            row["form"],
            str(row["batch"]),
            f"{row['accuracy']:.1%}",
            f"{row['share']:.1%}",
            f"{row['speedup']:.2f} ({row['speedup_low']:.2f} to {row['speedup_high']:.2f})",
            f"{row['realised_fraction']:.0%}",
        ]
        for row in document["rows"]
    ]
    return _table(("arm", "runtime", "batch", "accuracy", "MACs", "speed-up", "of the MACs' saving"), rows)


def equal_latency_table(document: dict[str, Any]) -> str:
    """Every arm beside ToFe at the same speed-up, in the same form and at the same batch size.

    ToFe's accuracy there lies on straight lines between its budgets; an arm that is faster or slower than all of
    these has no row.
    """
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in document["rows"]:
        groups.setdefault((row["form"], row["batch"]), []).append(row)
    rows = []
    for (form, batch), those in groups.items():
        curve = sorted((row["speedup"], row["accuracy"]) for row in those if row["arm"].startswith("bottleneck-"))
        if len(curve) < 2:
            continue
        speeds, accuracies = zip(*curve, strict=True)
        for row in those:
            if row["arm"].startswith("bottleneck-") or not speeds[0] <= row["speedup"] <= speeds[-1]:
                continue
            tofe = float(np.interp(row["speedup"], speeds, accuracies))
            other = f"{(row['accuracy'] - tofe) * 100:+.1f}"
            speed = f"{row['speedup']:.2f}"
            rows.append([f"`{row['arm']}`", form, str(batch), speed, f"{row['accuracy']:.1%}", f"{tofe:.1%}", other])
    return _table(("arm", "runtime", "batch", "speed-up", "accuracy", "ToFe there", "points to ToFe"), rows)


def _teachers(arms: dict[str, list[Line]]) -> str:
    """The dense networks: the arms' common start, and the one trained as much longer."""
    rows = [
        [f"`{name}`", percent([line["accuracy"] for line in arms[name]]), str(len(arms[name]))]
        for name in (TEACHER, DENSE)
        if name in arms
    ]
    return _table(("network", "accuracy", "seeds"), rows)
