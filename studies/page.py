"""docs/studies.md: its tables and figures are made of the committed results, its sentences are written by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from studies import fingerprints, results
from studies.figures import IMAGES, budget_figure, depth_figure, hardware_figure
from studies.tables import by_arm, equal_latency_table, hardware_table, tables
from tofe_export.files.writing import atomic_path, write_text
from tofe_export.page.drawing import drawing

PAGE = Path(__file__).parent.parent / "docs" / "studies.md"
_PLACE = re.compile(r"(<!-- (?P<name>[a-z0-9-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
PUBLISHED = {"clothing10": "on clothes", "cifar10": "on CIFAR-10"}
"""Sets of images -> how the page calls them; digits are for smoke runs."""
SECTIONS = {
    "approximation": {"teachers": "Dense networks", "approximation": "Estimates"},
    "budget": {"budget": "Budgets", "budget-figure": "Accuracy and cost"},
    "selector": {"selector": "Selectors"},
    "depth": {"depth": "Stages", "depth-figure": "Error and accuracy"},
    "attention": {"attention": "Attention", "errors": "Error of frozen tokens"},
    "counts": {"counts": "Fixed counts"},
    "reuse": {"reuse": "Histories of tokens", "no-return": "Without return, without estimates,"},
    "hardware": {
        "hardware": "Runtimes",
        "equal-latency": "At ToFe's latency",
        "hardware-figure": "Accuracy and speed",
    },
}
"""Section -> what stands in it, and under which words."""
NOT_RUN = "Not run yet.\n"
_CAPTIONS = {
    "budget-figure": "Accuracy against cost, for each way to save",
    "depth-figure": "Error of the estimates, and accuracy, by the number of blocks of a stage",
    "hardware-figure": "Accuracy against speed-up over the dense network",
}


def write() -> None:
    """Makes the figures, and fills the places of the page."""
    drawn = figures()
    found = contents(drawn)
    for name, figure in drawn.items():
        with drawing(), atomic_path(IMAGES / f"studies-{name}.svg") as path:
            figure.savefig(path, format="svg", metadata={"Date": None})
    write_text(PAGE, filled(PAGE.read_text(), found))


def contents(drawn: Mapping[str, Figure]) -> dict[str, str]:
    """Name of a section -> what there is for it, with these figures, for every set; or that it has not run.

    Raises:
        InputError: a result was made with other settings than those of today.
    """
    found = dict.fromkeys(SECTIONS, "")
    for name, called in PUBLISHED.items():
        lines = results.read(results.path_of(name))
        fingerprints.require_same_settings(name, lines)
        made = tables(by_arm(lines))
        timed = results.hardware_path_of(name)
        if timed.exists():
            measured = json.loads(timed.read_text())
            fingerprints.require_same_settings(name, measured["settings"]["arms"])
            made |= {"hardware": hardware_table(measured), "equal-latency": equal_latency_table(measured)}
        for what, caption in _CAPTIONS.items():
            if f"{name}-{what}" in drawn:
                made[what] = f"![{caption}](images/studies-{name}-{what}.svg)\n"
        for section, parts in SECTIONS.items():
            there = [f"{said} {called}:\n\n{made[part]}" for part, said in parts.items() if made.get(part)]
            found[section] += "".join(f"\n{one}" for one in there)
    return {section: f"{text or NOT_RUN}\n" for section, text in found.items()}


def figures() -> dict[str, Figure]:
    """Those for which there are results, by the name of their place."""
    found: dict[str, Figure | None] = {}
    for name in PUBLISHED:
        arms = by_arm(results.read(results.path_of(name)))
        found[f"{name}-budget-figure"] = budget_figure(arms)
        found[f"{name}-depth-figure"] = depth_figure(arms)
        timed = results.hardware_path_of(name)
        if timed.exists():
            found[f"{name}-hardware-figure"] = hardware_figure(json.loads(timed.read_text()), batch=1)
    return {name: figure for name, figure in found.items() if figure is not None}


def filled(page: str, found: dict[str, str]) -> str:
    """The page with every place filled anew.

    Raises:
        KeyError: a place that nothing is for.
    """
    return _PLACE.sub(lambda match: f"{match[1]}{found[match['name']]}{match[3]}", page)
