"""The queue: what is left of a study, in several processes. A kill loses only what runs."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, wait

from studies import fingerprints, results
from studies.experiments import TEACHER, arms_of
from studies.work import Job, Place, work


def jobs_left(place: Place, experiments: tuple[str, ...], seeds: int) -> list[Job]:
    """The jobs that are left until this number of seeds has every arm of the experiments, one seed after the other.

    Of each seed its teacher first, then the arms as the experiments list them. A teacher that is trained again on
    another machine becomes another one, with which finished arms cannot be compared. So a seed whose teacher is gone
    is not taken up again: its lines stay, and a new number takes its place.

    Raises:
        InputError: a result was made with other settings than those of today.
    """
    fingerprints.require_same_settings(place.images, results.read(place.results))
    arms, done, here = arms_of(experiments), results.done(place.results), place.teachers()
    begun = {seed for _, seed in done}
    missing = {seed: [Job(arm.name, seed) for arm in arms if (arm.name, seed) not in done] for seed in begun}
    complete = [seed for seed in begun if not missing[seed]]
    unfinished = [seed for seed in here if seed not in complete]
    fresh = (seed for seed in itertools.count() if seed not in begun and seed not in here)
    jobs: list[Job] = []
    for seed in itertools.islice(itertools.chain(unfinished, fresh), max(0, seeds - len(complete))):
        if seed not in here:
            jobs.append(Job(TEACHER, seed))
        jobs += missing.get(seed, [Job(arm.name, seed) for arm in arms])
    return jobs


def hours_of(place: Place, jobs: list[Job]) -> float | None:
    """What jobs take of one process, as finished ones took: the same arm, else arms in general. None where no line
    tells."""
    took: dict[str, list[float]] = {}
    for line in results.read(place.results):
        took.setdefault(line["arm"], []).append(line["seconds"])
    of_arms = [seconds for arm, known in took.items() if arm != TEACHER for seconds in known]
    expected = [took.get(job.arm, [] if job.arm == TEACHER else of_arms) for job in jobs]
    return sum(map(statistics.median, expected)) / 3600 if all(expected) else None


def run(
    places: list[tuple[Place, list[Job]]], processes: int, minutes: float, told: Callable[[str], None]
) -> list[Job]:
    """Does jobs until none is left or the time is over.

    Args:
        places: sets and the jobs that are left of each; they take turns.
        processes: at a time.
        minutes: after which what still runs is given up.
        told: called with a sentence about each job that is finished, or that failed: the others go on.

    Returns:
        The jobs that were not done.
    """
    end = time.monotonic() + 60 * minutes
    waiting = [(place, job) for rank in _ranks(places) for place, job in rank]
    running: dict[Future[Job], tuple[_Worker, Place, Job]] = {}
    failed: list[Job] = []
    idle = [_Worker() for _ in range(processes)]
    workers = list(idle)
    try:
        while True:
            for place, job in list(waiting):
                if idle and (job.arm == TEACHER or place.teacher(job.seed).exists()):
                    waiting.remove((place, job))
                    worker = idle.pop()
                    running[worker.begin(place, job)] = (worker, place, job)
            finished, _ = wait(running, max(0.0, end - time.monotonic()), FIRST_COMPLETED)
            for future in finished:
                worker, place, job = running.pop(future)
                idle.append(worker)
                what = f"{place.images}: {job.arm}, seed {job.seed}"
                if error := future.exception():
                    failed.append(job)
                    what += f" FAILED: {error}"
                told(f"{what} ({len(waiting) + len(running)} left)")
            if not finished:  # nothing can be begun any more, or the time is over
                return [*failed, *(job for _, _, job in running.values()), *(job for _, job in waiting)]
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """A process that does one job after the other. Each has a pool of its own: when a process is killed, for want of
    memory say, its whole pool is broken, and the others are to go on."""

    def __init__(self) -> None:
        self._pool = self._new()

    def begin(self, place: Place, job: Job) -> Future[Job]:
        """In a new process where the last was killed."""
        try:
            return self._pool.submit(work, place, job)
        except BrokenExecutor:
            self.end()
            self._pool = self._new()
            return self._pool.submit(work, place, job)

    def end(self) -> None:
        """Without waiting for what still runs: an unfinished job leaves no line."""
        for process in list((self._pool._processes or {}).values()):
            process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)

    @staticmethod
    def _new() -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _end_with_the_queue)


def _end_with_the_queue() -> None:
    """In a process of the pool: when the queue is killed it would go on alone, and then wait for ever."""
    queue = multiprocessing.parent_process()
    assert queue is not None

    def watch() -> None:
        queue.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _ranks(places: list[tuple[Place, list[Job]]]) -> list[list[tuple[Place, Job]]]:
    """The jobs of all sets in turn: the first of each, then the second of each."""
    longest = max((len(jobs) for _, jobs in places), default=0)
    return [[(place, jobs[rank]) for place, jobs in places if rank < len(jobs)] for rank in range(longest)]
