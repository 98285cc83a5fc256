"""What a queue still has to do, and what it does when a process is killed."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from studies import fingerprints, queue, results
from studies.experiments import EXPERIMENTS, TEACHER
from studies.work import Job, Place
from tofe_export.errors import InputError

ARMS = EXPERIMENTS["reuse"].arms


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place("digits", "digits", tmp_path, results.path_of("digits", tmp_path), "cpu")


def finish(place: Place, seed: int, arms: tuple[str, ...] = ARMS, *, lost: bool = False) -> None:
    """A teacher and some of its arms; the weights may be gone."""
    for arm in (TEACHER, *arms):
        results.append(place.results, {"arm": arm, "seed": seed, "recipe": fingerprints.of_settings("digits", arm)})
    if not lost:
        place.teacher(seed).touch()


def left(place: Place, seeds: int) -> list[Job]:
    return queue.jobs_left(place, ("reuse",), seeds)


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


def test_a_teacher_of_other_settings_or_images_is_not_used(place: Place, tmp_path: Path) -> None:
    finish(place, 0, ARMS[:1])
    others = [tmp_path / "one", tmp_path / "two"]
    for number, folder in enumerate(others):
        folder.mkdir()
        (folder / "image.png").write_bytes(b"." * (number + 1))
    names = {fingerprints.of_images("digits", str(one)) for one in others} | {place.kept_images.stem.split("-")[1]}
    assert len(names) == 3
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "image.png").write_bytes(b".")
    assert fingerprints.of_images("digits", str(tmp_path / "moved")) in names
    elsewhere = replace(place, data=str(others[0]))
    assert place.teachers() == [0]
    assert elsewhere.teachers() == []
    assert left(elsewhere, 1) == whole(1)


def test_time_is_expected_as_finished_jobs_took(place: Place) -> None:
    assert queue.hours_of(place, whole(0)) is None
    for arm, seed, seconds in ((ARMS[0], 0, 1800.0), (ARMS[0], 1, 3600.0), (ARMS[0], 2, 7200.0)):
        results.append(place.results, {"arm": arm, "seed": seed, "seconds": seconds})
    assert queue.hours_of(place, whole(3)) is None  # no teacher was finished
    assert queue.hours_of(place, whole(3)[1:]) == 1.0 * len(ARMS)
    results.append(place.results, {"arm": ARMS[1], "seed": 0, "seconds": 1800.0})
    results.append(place.results, {"arm": TEACHER, "seed": 0, "seconds": 36000.0})
    # The first arm as its median; the second as its one line; the third as the median of all four lines of arms.
    assert queue.hours_of(place, whole(3)) == 10.0 + 1.0 + 0.5 + 0.75


def test_settings_are_told_apart_by_arm_and_set() -> None:
    arms = (TEACHER, *EXPERIMENTS["selector"].arms)
    assert len({fingerprints.of_settings(images, arm) for images in ("digits", "cifar10") for arm in arms}) == 22


def test_results_of_other_code_are_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    results.append(
        place.results, {"arm": ARMS[0], "seed": 0, "recipe": fingerprints.of_settings.__wrapped__("digits", ARMS[0])}
    )
    teacher = fingerprints.of_settings.__wrapped__("digits", TEACHER)
    monkeypatch.setattr(fingerprints, "_REVISION", fingerprints._REVISION + 1)
    monkeypatch.setattr(fingerprints, "of_settings", fingerprints.of_settings.__wrapped__)
    assert fingerprints.of_settings("digits", TEACHER) == teacher  # trained before there are arms
    with pytest.raises(InputError, match=f"{ARMS[0]} with seed 0 was made with other settings"):
        left(place, 1)


def test_results_of_other_settings_are_refused(place: Place) -> None:
    today = fingerprints.of_settings("digits", ARMS[0])
    results.append(place.results, {"arm": ARMS[0], "seed": 0, "recipe": today})
    results.append(place.results, {"arm": "of-old", "seed": 0, "recipe": "other"})
    assert left(place, 1) == whole(1)
    results.append(place.results, {"arm": ARMS[0], "seed": 4, "recipe": "other"})
    with pytest.raises(InputError, match=f"{ARMS[0]} with seed 4 was made with other settings"):
        left(place, 1)


def done_or_killed(place: Place, job: Job) -> Job:
    """In place of `work`: the first seed is killed, as for want of memory."""
    if job.seed == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return job


@pytest.mark.slow
def test_the_queue_goes_on_without_a_job_that_was_killed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "work", done_or_killed)
    jobs = [Job(TEACHER, seed) for seed in range(3)]
    said: list[str] = []
    assert queue.run([(place, jobs)], 1, 10, said.append) == [jobs[0]]
    assert ["FAILED" in one for one in said] == [True, False, False]
