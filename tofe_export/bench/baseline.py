"""A gate for CI: has a model become slower than a recorded run says, in proportion to its dense backbone?

What is compared is the speed-up, a paired ratio within each round, never a time: a slower machine or a busy one slows
the dense backbone alike. A row has regressed when its median fell by more than the limit and the whole 95% interval of
the new run lies below the old median. The second half keeps noise out: where the interval still reaches the old median,
the two runs may well be equally fast.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tofe_export.artifacts.commands import command
from tofe_export.artifacts.files import read_json
from tofe_export.artifacts.names import readable
from tofe_export.errors import InputError

SCHEMA = "tofe-export/bench/1"
_KEY = ("name", "backend", "precision", "batch")
_NUMBERS = ("speedup", "speedup_low", "speedup_high", "gmacs")
_RECORD = "Record one: tofe-export bench model.onnx --json baseline.json"

Key = tuple[str, str, str, int]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Baseline:
    """A recorded bench.json.

    Attributes:
        path: the file.
        rows: its rows but for the dense ones, by name, backend, precision and batch.
        machine, threads: what it was measured with.
    """

    path: Path
    rows: Mapping[Key, Row]
    machine: Mapping[str, Any]
    threads: int | None


def read_baseline(path: Path) -> Baseline:
    """Reads and checks a recorded run.

    Raises:
        InputError: no such file, not a bench.json, a row with a hole, or none but dense rows.
    """
    document = read_json(path, _RECORD)
    if document.get("schema") != SCHEMA or not isinstance(document.get("rows"), list):
        raise InputError(f"{path} is no result of tofe-export bench.", _RECORD)
    rows = {}
    for row in document["rows"]:
        _check(row, path)
        if not is_dense(row):
            rows[key_of(row)] = row
    if not rows:
        raise InputError(f"{path} holds no model beside the dense backbone.", _RECORD)
    machine, settings = document.get("machine"), document.get("settings")
    threads = settings.get("threads") if isinstance(settings, Mapping) else None
    return Baseline(path, rows, machine if isinstance(machine, Mapping) else {}, threads)


def judge(document: Mapping[str, Any], baseline: Baseline, limit: float) -> dict[str, Any]:
    """The `baseline` object of bench.json.

    Args:
        document: the new bench.json.
        baseline: the recorded one.
        limit: share of the speed-up that may be lost, 0..1.

    Returns:
        `file`, `max_regression`, `passed`, `rows` (a verdict each) and `notes` on what makes the two hard to compare.
    """
    new = {key_of(row): row for row in document["rows"] if not is_dense(row)}
    rows = [_judged(key, new.get(key), old, limit) for key, old in baseline.rows.items()]
    return {
        "file": readable(baseline.path.name),
        "max_regression": limit,
        "passed": all(row["verdict"] not in ("regressed", "not timed") for row in rows),
        "rows": rows,
        "notes": _notes(document, new, baseline),
    }


def failures(judged: Mapping[str, Any]) -> list[str]:
    """One sentence per row that fails the gate."""
    found = []
    for row in judged["rows"]:
        what = f"{row['name']} ({row['backend']}, {row['precision']}) at batch {row['batch']}"
        if row["verdict"] == "regressed":
            found.append(
                f"{what} is {row['speedup']:.2f} times as fast as its dense backbone (interval {row['low']:.2f} to "
                f"{row['high']:.2f}), and was {row['baseline']:.2f}: {-row['change']:.1%} less, where "
                f"{judged['max_regression']:.1%} is allowed."
            )
        elif row["verdict"] == "not timed":
            found.append(f"{what} is in {judged['file']}, but was not timed now.")
    return found


def parse_share(text: str) -> float:
    """Turns "5%" and "0.05" into 0.05.

    Raises:
        InputError: anything else, or a share that is not between 0 and 1.
    """
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        value = float(number) / (100 if percent else 1)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1:
        raise InputError(f"--max-regression {text!r} is no share of the speed-up.", "Write 5% or 0.05.")
    return value


def is_dense(row: Row) -> bool:
    """Whether the row is a dense backbone's: compared with itself, it is exactly as fast, without an interval."""
    return bool(row["speedup"] == row["speedup_low"] == row["speedup_high"] == 1.0)


def key_of(row: Row) -> Key:
    """What makes two runs' rows the same row."""
    return str(row["name"]), str(row["backend"]), str(row["precision"]), int(row["batch"])


def _judged(key: Key, new: Row | None, old: Row, limit: float) -> dict[str, Any]:
    row = dict(zip(_KEY, key, strict=True)) | {"baseline": old["speedup"]}
    if new is None:
        return {**row, "speedup": None, "low": None, "high": None, "change": None, "verdict": "not timed"}
    change = new["speedup"] / old["speedup"] - 1
    fell, surely = change < -limit, new["speedup_high"] < old["speedup"]
    verdict = "regressed" if fell and surely else "unsure" if fell else "held"
    found = {"speedup": new["speedup"], "low": new["speedup_low"], "high": new["speedup_high"]}
    return {**row, **found, "change": change, "verdict": verdict}


def _notes(document: Mapping[str, Any], new: Mapping[Key, Row], baseline: Baseline) -> list[str]:
    notes = []
    for what in ("processor", "gpu"):
        then, now = baseline.machine.get(what), document["machine"].get(what)
        if then != now:
            notes.append(
                f"The baseline was measured on another {what} ({then or 'none'}, now {now or 'none'}): "
                "a speed-up belongs to its machine, so record a baseline here."
            )
    if baseline.threads not in (None, document["settings"]["threads"]):
        notes.append(f"The baseline was measured with {baseline.threads} threads: add --threads {baseline.threads}.")
    for key, row in new.items():
        if key not in baseline.rows:
            notes.append(
                f"{key[0]} ({key[1]}, {key[2]}) at batch {key[3]} is not in the baseline, so it is not judged."
            )
        elif not math.isclose(row["gmacs"], baseline.rows[key]["gmacs"], rel_tol=1e-6):
            notes.append(
                f"{key[0]} at batch {key[3]} costs {row['gmacs']:.4g} GMACs, in the baseline "
                f"{baseline.rows[key]['gmacs']:.4g}: it is another model."
            )
    return notes


def _check(row: object, path: Path) -> None:
    again = f"Make it again: {command('bench', 'MODEL', '--json', path)}"
    if not isinstance(row, Mapping) or not all(isinstance(row.get(name), str) for name in _KEY[:3]):
        raise InputError(f"{path} has a row that names no model.", again)
    numbers: Sequence[Any] = [row.get(name) for name in (*_NUMBERS, "batch")]
    if any(isinstance(n, bool) or not isinstance(n, (int, float)) or not 0 < n < math.inf for n in numbers):
        raise InputError(f"{path} has a row of {row['name']} with a number that is missing or not positive.", again)
