"""python -m tests.formats [--only WORD] [--docs docs/formats.md]: makes every file, reads it, tells what became."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.formats.case import Case, Outcome, judge
from tests.formats.cases import all_cases
from tests.formats.table import written


def main() -> int:
    """Exit 1 where a file was not taken rightly, or not refused with a next step."""
    parser = argparse.ArgumentParser(prog="python -m tests.formats", description=__doc__)
    parser.add_argument("--only", default="", metavar="WORD", help="cases with this in their group or name")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="write the table there")
    options = parser.parse_args()
    found: list[tuple[Case, Outcome]] = []
    for case in all_cases():
        if options.only in f"{case.group}: {case.name}":
            with tempfile.TemporaryDirectory(prefix="tofe-format-") as folder:
                found.append((case, judge(case, Path(folder))))
            mark = "" if found[-1][1].fits(case) else "FAULT "
            print(f"{mark}{case.group}: {case.name}: {found[-1][1].verdict} ({found[-1][1].sentence})", flush=True)
    faults = [case.name for case, outcome in found if not outcome.fits(case)]
    print(f"{len(found)} files; {dict(Counter(outcome.verdict for _, outcome in found))}; faults: {faults or 'none'}")
    if options.docs:
        options.docs.write_text(written(found), encoding="utf-8")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
