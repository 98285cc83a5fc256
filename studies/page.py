"""docs/studies.md: its tables and figures are made of the committed results, its sentences are written by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

from matplotlib.figure import Figure

from studies import results
from studies.experiments import SETS
from studies.figures import IMAGES, budget_figure, depth_figure, hardware_figure
from studies.tables import NOT_RUN, by_arm, hardware_table, tables
from tofe_export.files.writing import atomic_path, write_text

PAGE = Path(__file__).parent.parent / "docs" / "studies.md"
_PLACE = re.compile(r"(<!-- (?P<name>[a-z0-9-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_CAPTIONS = {
    "budget-figure": "Accuracy against cost, for each way to save",
    "depth-figure": "Error of the estimates, and accuracy, by the number of blocks of a stage",
    "hardware-figure": "Accuracy against speed-up over the dense network",
}


def write() -> None:
    """Makes the figures, and fills the places of the page."""
    found = contents()
    for name, figure in figures().items():
        with atomic_path(IMAGES / f"studies-{name}.svg") as path:
            figure.savefig(path, format="svg", metadata={"Date": None})
    write_text(PAGE, filled(PAGE.read_text(), found))


def contents() -> dict[str, str]:
    """Name of a place -> Markdown."""
    found: dict[str, str] = {}
    drawn = figures()
    for name in SETS:
        lines = results.read(results.path_of(name))
        found |= {f"{name}-{what}": text for what, text in tables(by_arm(lines)).items()}
        timed = results.hardware_path_of(name)
        found[f"{name}-hardware"] = hardware_table(json.loads(timed.read_text())) if timed.exists() else NOT_RUN
        for what, caption in _CAPTIONS.items():
            key = f"{name}-{what}"
            found[key] = f"![{caption}](images/studies-{key}.svg)\n" if key in drawn else NOT_RUN
    return found


def figures() -> dict[str, Figure]:
    """Those for which there are results, by the name of their place."""
    found: dict[str, Figure | None] = {}
    for name in SETS:
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
