"""Runs cases, each in a sandbox of its own, and judges what came of them."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.hostile import kit as kits
from tests.hostile import launch
from tests.hostile.case import Case, Skip
from tests.hostile.judge import Snapshot, Verdict, judge, snapshot


def make_kit(folder: Path, cases: Sequence[Case]) -> Path:
    """The kit of files that are right, in `folder`/kit; what no case needs is left out."""
    kit = folder / "kit"
    kit.mkdir()
    sandbox = folder / "making"
    for name in ("work", "home", "tmp"):
        (sandbox / name).mkdir(parents=True)
    if launch.call(lambda: kits.make_kit(sandbox / "work")):
        raise RuntimeError("the kit could not be made")
    for arguments in kits.kit_commands({name for case in cases for name in case.kit}):
        case = Case("kit", arguments[0], "kit", arguments, seconds=600)
        running = launch.start(case, sandbox)
        status = (0, 0)
        while not status[0]:
            running.drain()
            status = os.waitpid(running.process, os.WNOHANG)
            time.sleep(0.01)
        running.drain()
        running.close()
        code = os.waitstatus_to_exitcode(status[1])
        if code not in (0, 1):
            raise RuntimeError(f"{launch.describe(case)} exits with {code}: {running.text()}")
        for name in (".stdout", ".stderr"):
            (sandbox / name).unlink()
    (sandbox / "work").rename(kit / "files")
    shutil.rmtree(sandbox)
    return kit / "files"


def run_cases(cases: Sequence[Case], folder: Path, jobs: int = 1, keep: bool = False) -> Iterator[Verdict]:
    """Runs every case, at most `jobs` at a time.

    Args:
        cases: in the order in which they start.
        folder: for sandboxes; those of cases without faults are removed.
        jobs: how many run at a time.
        keep: leave the sandboxes of cases with faults.

    Yields:
        A verdict each, in the order in which they end.
    """
    kit = make_kit(folder, cases)
    waiting, running = list(reversed(cases)), list[tuple[launch.Running, Snapshot]]()
    while waiting or running:
        while waiting and len(running) < jobs:
            case = waiting.pop()
            made = _prepare(case, folder / f"case-{len(cases) - len(waiting):04}", kit)
            if isinstance(made, Verdict):
                yield made
            else:
                before = snapshot(made)
                running.append((launch.start(case, made), before))
        for entry in list(running):
            verdict = _poll(*entry)
            if verdict is not None:
                running.remove(entry)
                if not (keep and verdict.faults):
                    _remove(entry[0].sandbox)
                yield verdict
        time.sleep(0.01)


def _prepare(case: Case, sandbox: Path, kit: Path) -> Path | Verdict:
    for name in ("work", "home", "tmp"):
        (sandbox / name).mkdir(parents=True)
    kits.copy_into(kit, case.kit, sandbox / "work")
    if case.prepare is not None:
        try:
            case.prepare(sandbox / "work")
        except Skip as reason:
            _remove(sandbox)
            return Verdict(case.name, launch.describe(case), skipped=str(reason))
        except Exception as error:
            _remove(sandbox)
            return Verdict(case.name, launch.describe(case), faults=[f"the case itself is broken: {error!r}"])
    if case.around.folder == "read-only":
        (sandbox / "work").chmod(0o555)
    return sandbox


def _poll(running: launch.Running, before: Snapshot) -> Verdict | None:
    case = running.case
    process, status, usage = os.wait4(running.process, os.WNOHANG)
    seconds = time.monotonic() - running.started
    running.drain()
    if not process:
        _send_signal(running)
        if seconds < case.seconds:
            return None
        launch.stop(running.process)
        _, _, usage = os.wait4(running.process, 0)
    launch.stop(running.process)  # children of its own
    running.drain()
    running.close()
    verdict = Verdict(case.name, launch.describe(case), seconds=round(seconds, 2))
    verdict.code = os.waitstatus_to_exitcode(status) if process else None
    verdict.peak_mib = usage.ru_maxrss >> 10
    verdict.cpu = round(usage.ru_utime + usage.ru_stime, 2)
    verdict.said = running.text()
    judge(case, verdict, before, snapshot(running.sandbox), running.complaint())
    if case.check is not None:
        verdict.faults += case.check(running.sandbox / "work", verdict.said)
    return verdict


def _send_signal(running: launch.Running) -> None:
    around = running.case.around
    if around.signal and not running.signalled:
        wanted = running.sandbox / "work" / around.signal_when if around.signal_when else running.sandbox / launch.BEGUN
        if list(wanted.parent.glob(wanted.name)):
            os.kill(running.process, around.signal)
            running.signalled = True


def _remove(sandbox: Path) -> None:
    def unlock(function: Callable[..., object], path: str, _: object) -> None:
        os.chmod(os.path.dirname(path), 0o700)  # noqa: PTH101, PTH120 - not every name here is text
        function(path)

    shutil.rmtree(sandbox, onexc=unlock) if sys.version_info >= (3, 12) else shutil.rmtree(sandbox, onerror=unlock)


def tidy_signals() -> None:
    """An interrupt must end the cases too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
