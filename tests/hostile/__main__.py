"""python -m tests.hostile [--only PATTERN] [--every N] [--jobs N] [--json FILE] [--list] [--sample] [--keep FOLDER]"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import fnmatch
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.hostile.cases import all_cases, sample


def main() -> int:
    """Runs the cases that are asked for; exit 1 when one has a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--only", action="append", metavar="PATTERN", help="family/verb/what, with * and ?; repeatable")
    parser.add_argument("--sample", action="store_true", help="the cheap sample that the default tests run")
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only each Nth case")
    parser.add_argument("--start", type=int, default=0, metavar="K", help="... beginning with the Kth")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the verdicts")
    parser.add_argument("--list", action="store_true", help="print names and count them")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the sandboxes of cases with faults there")
    options = parser.parse_args()
    cases = sample() if options.sample else all_cases()
    if options.only:
        cases = [case for case in cases if any(fnmatch.fnmatch(case.name, pattern) for pattern in options.only)]
    cases = cases[options.start :: options.every]
    if options.list:
        for case in cases:
            print(case.name)
        _count([case.name for case in cases])
        return 0
    if not cases:
        sys.exit("No case has such a name; see --list.")
    return _run(cases, options)


def _run(cases: list, options: argparse.Namespace) -> int:
    from tests.hostile.launch import load_everything
    from tests.hostile.run import run_cases, tidy_signals

    tidy_signals()
    load_everything()
    started = time.monotonic()
    # No TemporaryDirectory: forks run what is registered to run at exit, and would remove it.
    home = Path(tempfile.mkdtemp(prefix="hostile-", dir=options.keep))
    verdicts = []
    try:
        for verdict in run_cases(cases, home, options.jobs, options.keep is not None):
            verdicts.append(verdict)
            _show(verdict, len(verdicts), len(cases))
    finally:
        if options.keep is None:
            shutil.rmtree(home)
    faulty = [verdict for verdict in verdicts if verdict.faults]
    skipped = [verdict for verdict in verdicts if verdict.skipped]
    _count([verdict.name for verdict in verdicts])
    noted = sum(bool(verdict.notes) for verdict in verdicts)
    spent = sum(verdict.cpu for verdict in verdicts)
    print(
        f"{len(verdicts)} cases in {time.monotonic() - started:.0f} s, {spent:.0f} s of one processor: "
        f"{len(faulty)} with faults, {noted} with notes, {len(skipped)} skipped"
    )
    if options.json is not None:
        document = {"cases": [dataclasses.asdict(verdict) for verdict in verdicts]}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    sys.stdout.flush()
    os._exit(1 if faulty else 0)  # without the last words of the libraries that were loaded


def _show(verdict, number: int, total: int) -> None:
    mark = "skip" if verdict.skipped else "FAIL" if verdict.faults else "ok"
    print(
        f"{number}/{total} {mark:4} {verdict.cpu:5.1f} s  exit {verdict.code}  {ascii(verdict.name)[1:-1]}", flush=True
    )
    for line in [verdict.skipped] * bool(verdict.skipped) + verdict.faults:
        print(f"        {ascii(line)[1:-1]}", flush=True)
    for line in verdict.notes:
        print(f"        note: {ascii(line)[1:-1]}", flush=True)


def _count(names: list[str]) -> None:
    for place, what in ((0, "family"), (1, "verb")):
        counts = collections.Counter(name.split("/")[place] for name in names)
        print(f"by {what}: " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    print(f"in all: {len(names)}")


if __name__ == "__main__":
    sys.exit(main())
