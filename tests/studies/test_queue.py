"""What a queue still has to do."""

from pathlib import Path

import pytest

from studies import results
from studies.experiments import EXPERIMENTS, TEACHER
from studies.queue import Left
from studies.work import Job, Place

ARMS = EXPERIMENTS["reuse"].arms


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place("digits", "digits", tmp_path, results.path_of("digits", tmp_path), "cpu")


def finish(place: Place, seed: int, arms: tuple[str, ...] = ARMS, *, lost: bool = False) -> None:
    """A teacher and some of its arms; the weights may be gone."""
    for arm in (TEACHER, *arms):
        results.append(place.results, {"arm": arm, "seed": seed})
    if not lost:
        place.teacher(seed).touch()


def left(place: Place, seeds: int) -> list[Job]:
    return list(Left.of(place, ("reuse",), seeds).jobs)


def whole(seed: int) -> list[Job]:
    return [Job(arm, seed) for arm in (TEACHER, *ARMS)]


def test_one_seed_after_the_other(place: Place) -> None:
    assert left(place, 2) == whole(0) + whole(1)


def test_it_goes_on_with_a_seed_that_is_not_finished(place: Place) -> None:
    finish(place, 0)
    finish(place, 1, ARMS[:1])
    assert left(place, 3) == [Job(arm, 1) for arm in ARMS[1:]] + whole(2)


def test_a_seed_whose_teacher_is_gone_is_replaced(place: Place) -> None:
    finish(place, 0, lost=True)
    finish(place, 1, ARMS[:1], lost=True)
    assert left(place, 2) == whole(2)


def test_a_teacher_without_a_line_is_used(place: Place) -> None:
    place.teacher(1).touch()
    assert left(place, 2) == whole(1)[1:] + whole(0)


def test_nothing_is_left(place: Place) -> None:
    for seed in range(3):
        finish(place, seed, lost=True)
    assert left(place, 2) == left(place, 3) == []
