"""One seed of one arm, trained again and set beside its committed result: for a reader who distrusts us."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from studies import fingerprints, results
from studies.experiments import TEACHER
from studies.work import Job, Place, work
from tofe_export.errors import InputError

LEAST_TOLERANCE = 0.02
"""Of accuracy: on the 1,016 held-out photographs of clothes its standard error alone is 1.5 points."""


@dataclass(frozen=True)
class Repeated:
    """What came out this time."""

    sentence: str
    agrees: bool


def repeat(place: Place, arm: str, seed: int, folder: Path) -> Repeated:
    """Trains teacher and arm in `folder`, with all processors: nothing else runs beside them.

    With another processor or release of PyTorch a repetition is like a run with another seed. So the two accuracies may
    differ by three standard deviations of the arm over its seeds, or `LEAST_TOLERANCE`
    where that is more.

    Raises:
        InputError: no result of that arm and seed is committed, or it was made with other settings than today's.
    """
    lines = [line for line in results.read(place.results) if line["arm"] == arm]
    committed = next((line for line in lines if line["seed"] == seed), None)
    if committed is None:
        known = ", ".join(str(line["seed"]) for line in lines) or "none"
        raise InputError(
            f"No result of {arm} with seed {seed} is committed; seeds that are: {known}.",
            "Choose another, or make it: `python -m studies run`.",
            code="no-result",
        )
    fingerprints.require_same_settings(place.images, [committed])
    here = replace(place, work=folder, results=folder / place.results.name, threads=torch.get_num_threads())
    for name in (TEACHER, arm):
        work(here, Job(name, seed))
    found = results.read(here.results)[-1]["accuracy"]
    spread = float(np.std([line["accuracy"] for line in lines], ddof=1)) if len(lines) > 1 else 0.0
    tolerance = max(LEAST_TOLERANCE, 3 * spread)
    agrees = abs(found - committed["accuracy"]) <= tolerance
    return Repeated(
        f"{arm}, seed {seed}: {found:.2%} here, {committed['accuracy']:.2%} committed "
        f"({committed['device']}, torch {committed['torch']}); tolerance {tolerance * 100:.1f} points: "
        f"{'agrees' if agrees else 'DISAGREES'}.",
        agrees,
    )
