"""Short hashes of settings and images, so that what was made with others is not taken for a result of today's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cache

from studies.experiments import ARMS, SETS, TEACHER
from studies.networks import recipe_of
from studies.results import Line
from tofe_export.errors import InputError
from tofe_export.files.names import expanded

_DIGITS = 10
_REVISION = 2
"""Of how the code trains and measures arms: a result of another one is made with other settings. Raise it with a change
that makes other arms of the same settings."""


@cache
def of_images(images: str, data: str) -> str:
    """Of a set as it is kept in memory: names and sizes of its files wherever they lie, and how they are prepared."""
    root = expanded(data)
    files = sorted((str(path.relative_to(root)), path.stat().st_size) for path in root.rglob("*") if path.is_file())
    return _hash([images, SETS[images].stored, recipe_of(SETS[images], None, 0).network.model_dump(), files])


@cache
def of_teacher(images: str, data: str) -> str:
    """Of a teacher's settings but its seed, and of its images.

    It knows no revision of the code: whoever changes how a dense network is trained or images are prepared removes the
    teachers and what was kept of the images (`--work`).
    """
    return _hash([of_settings(images, TEACHER), of_images(images, data)])


@cache
def of_settings(images: str, arm: str) -> str:
    """Of all that decides what an arm or the teacher becomes, but its seed and its images."""
    kind = None if arm == TEACHER else ARMS[arm]
    recipe = recipe_of(SETS[images], kind, 0).model_dump()
    if kind is None:
        return _hash([{name: table for name, table in recipe.items() if name not in ("tofe", "loss")}])
    parts = [kind.selection, kind.shape, kind.selector, kind.fitted_alone, SETS[images].stored]
    return _hash([_REVISION, recipe, *parts])


def require_same_settings(images: str, lines: Iterable[Line]) -> None:
    """Raises InputError for a result that was made with other settings than those of today."""
    for line in lines:
        if line["arm"] not in (TEACHER, *ARMS):
            continue  # an arm of earlier days is compared with nothing
        today = of_settings(images, line["arm"])
        if line.get("recipe") != today:
            raise InputError(
                f"The result of {line['arm']} with seed {line['seed']} was made with other settings than today's.",
                "Give another folder of results (--results), or remove these and train all arms again.",
                code="other-settings",
                arm=line["arm"],
                seed=line["seed"],
            )


def _hash(what: object) -> str:
    text = json.dumps(what, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
