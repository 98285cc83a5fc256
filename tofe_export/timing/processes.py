"""Whole processes, repeated: where memory lies and how threads are placed is decided once per process, and can move a
ratio by more than the noise within one. Only fresh processes show how much; a fork would inherit the layout."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from tofe_export.errors import MissingError
from tofe_export.progress import Progress, silent
from tofe_export.timing.blocks import Timings
from tofe_export.timing.jobs import NO_BATCH, Job, Message
from tofe_export.timing.subjects import AnySubject

_WORKER = "tofe_export.timing.worker"
_SAID = 2000  # characters of what a worker wrote before it ended


@dataclass(frozen=True)
class Measured:
    """What several processes measured.

    Attributes:
        processes: for each process, (place of the subject, batch size) -> its timings.
    """

    processes: tuple[dict[tuple[int, int], Timings], ...]

    def of(self, subject: int, batch: int = NO_BATCH) -> list[Timings]:
        """The timings of a subject, by its place among those that were given; one for each process.

        Subjects with an input of their own have no batch size.
        """
        return [process[subject, batch] for process in self.processes]


def time_in_processes(
    subjects: Sequence[AnySubject],
    image_shape: tuple[int, int, int],
    batches: Sequence[int],
    rounds: int,
    processes: int,
    seed: int = 0,
    progress: Progress = silent,
    task: str = "Timing",
) -> Measured:
    """Times subjects together, in `processes` fresh processes one after the other.

    Args:
        subjects: what to open and to time; each must stay where it is until this returns.
        image_shape: (D, H, W) of what the models take.
        batches: batch sizes, timed one after the other in each process.
        rounds: of hot blocks at each batch size; see `blocks`.
        processes: how many.
        seed: of the orders, which differ from process to process.
        progress, task: called with `task` after each round.

    Raises:
        TofeError: what a subject raises in the worker.
        MissingError: a worker was killed, as the system does where memory runs out.
    """
    measured: list[dict[tuple[int, int], Timings]] = []
    done = 0
    for number in range(processes):
        job = Job(
            subjects=tuple(subjects),
            image_shape=image_shape,
            batches=tuple(batches),
            rounds=rounds,
            seed=(seed, number),
        )
        total = processes * job.steps
        progress(task, done, total)
        with contextlib.closing(_messages(job)) as messages:
            for message in messages:
                if message.failure is not None:
                    raise message.failure.error()
                if message.timed is not None:
                    measured.append({(one.subject, one.batch): Timings(one.rounds_ms) for one in message.timed})
                    break
                done += 1
                progress(task, done, total)
    return Measured(tuple(measured))


def _messages(job: Job) -> Generator[Message]:
    """What a worker says of its job until it has said how that ended.

    Raises:
        MissingError: it was killed before.
        RuntimeError: it ended before, which is a defect.
    """
    with tempfile.TemporaryFile() as complaints, _worker(complaints) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # its end says more
            process.stdin.write(json.dumps(job.to_dict()).encode())
            process.stdin.close()
        for line in process.stdout:
            yield Message.model_validate(json.loads(line))
        code = process.wait()
        if code == -signal.SIGKILL:
            raise MissingError(
                "A process that timed models was killed, probably because memory ran out.",
                "Free some memory, or take a smaller batch or network.",
                code="worker-killed",
            )
        complaints.seek(0)
        said = complaints.read().decode(errors="replace")[-_SAID:].strip()
        raise RuntimeError(f"a process that timed models ended with {code}: {said}")


@contextlib.contextmanager
def _worker(complaints: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """A worker, which does not outlive this: not by an error and not by Ctrl-C."""
    # It imports what this process would, and nothing that happens to lie in the current folder (-P).
    searched = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # noqa: PTH109
    command, pipe = [sys.executable, "-Pm", _WORKER], subprocess.PIPE
    process = subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=complaints, env={**os.environ, "PYTHONPATH": searched}
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
