"""JSON documents as checked values, bench.json first: a file of another kind or with a hole is refused by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tofe_export.artifacts.files import read_json
from tofe_export.errors import InputError

BENCH_SCHEMA = "tofe-export/bench/1"
_LARGEST = 1e12  # no time, cost or count is larger; beyond it a chart has no axis


@dataclass(frozen=True)
class Fields:
    """A JSON object and where it came from, so that a wrong field can be named.

    Attributes:
        values: the object.
        path: its file.
        remake: command that writes the file anew.
    """

    values: Mapping[str, Any]
    path: Path
    remake: str

    def number(self, key: str) -> float:
        """A required number; infinities are numbers here, for a broken model can be infinitely far off."""
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.refuse(key, "a number")
        try:
            number = float(value)
        except OverflowError:  # an integer of 400 digits
            raise self.refuse(key, "a number that a computer can hold") from None
        if math.isnan(number):
            raise self.refuse(key, "a number")
        return number

    def positive(self, key: str) -> float:
        """A required number above 0, and small enough to be drawn."""
        value = self.number(key)
        if not 0 < value < _LARGEST:
            raise self.refuse(key, "a positive number")
        return value

    def optional_positive(self, key: str) -> float | None:
        """A number above 0, or None where the file has none."""
        return None if self.values.get(key) is None else self.positive(key)

    def optional_number(self, key: str) -> float | None:
        """A number, or None where the file has none."""
        return None if self.values.get(key) is None else self.number(key)

    def text(self, key: str) -> str:
        """A text, or a number as one; "" where the file has none."""
        value = self.values.get(key)
        if not isinstance(value, (str, int, float, type(None))):
            raise self.refuse(key, "a text")
        return "" if value is None else str(value)

    def name(self, key: str) -> str:
        """A required text that is not empty."""
        value = self.values.get(key)
        if not isinstance(value, str) or not value:
            raise self.refuse(key, "a name")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts; empty where the file has none."""
        value = self.values.get(key)
        if not isinstance(value, (list, type(None))) or not all(isinstance(item, str) for item in value or ()):
            raise self.refuse(key, "a list of texts")
        return tuple(value or ())

    def flag(self, key: str) -> bool:
        """A required true or false."""
        value = self.values.get(key)
        if not isinstance(value, bool):
            raise self.refuse(key, "true or false")
        return value

    def part(self, key: str) -> Fields:
        """A required object inside this one."""
        value = self.values.get(key)
        if not isinstance(value, Mapping):
            raise self.refuse(key, "an object")
        return Fields(value, self.path, self.remake)

    def optional_part(self, key: str) -> Fields | None:
        """An object inside this one, or None where the file has none."""
        return None if self.values.get(key) is None else self.part(key)

    def whole(self, key: str) -> int:
        """A required whole number, 0 or more."""
        value = self.number(key)
        if not (0 <= value < _LARGEST and value == int(value)):
            raise self.refuse(key, "a whole number")
        return int(value)

    def wholes(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers; empty where the file has none."""
        value = self.values.get(key)
        if not isinstance(value, (list, type(None))) or not all(is_whole(item) for item in value or ()):
            raise self.refuse(key, "a list of whole numbers")
        return tuple(value or ())

    def parts(self, key: str) -> list[Fields]:
        """A required list of objects."""
        value = self.values.get(key)
        if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
            raise self.refuse(key, "a list of objects")
        return [Fields(item, self.path, self.remake) for item in value]

    def refuse(self, key: str, wanted: str) -> InputError:
        """The error for a field that is missing or of another kind."""
        return InputError(f"{self.path} cannot be used: its {key!r} is not {wanted}.", f"Make it again: {self.remake}")


def is_whole(value: object) -> bool:
    """Whether a JSON value is a whole number, 0 or more, that can be counted to."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST


@dataclass(frozen=True)
class BenchRow:
    """One model at one batch size; times in milliseconds, gmacs of one image, speedup against the dense row.

    `calls` is how many calls the percentiles are of, None where an older file does not say.
    """

    name: str
    backend: str
    precision: str
    batch: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    images_per_s: float
    gmacs: float
    speedup: float
    speedup_low: float | None
    speedup_high: float | None
    realised_fraction: float
    calls: int | None = None

    @property
    def dense(self) -> bool:
        """Whether this is the baseline of its run: compared with itself, it gains and costs exactly nothing."""
        interval = {self.speedup_low, self.speedup_high}
        return self.speedup == self.realised_fraction == 1.0 and interval <= {1.0, None}


@dataclass(frozen=True)
class GateRow:
    """A row of the recorded run and what became of its speed-up; `speedup` is None where it was not timed again."""

    name: str
    backend: str
    precision: str
    batch: int
    baseline: float
    speedup: float | None
    verdict: str


@dataclass(frozen=True)
class Gate:
    """What `bench --baseline` judged; `max_regression` is the share of a speed-up that may be lost."""

    file: str
    max_regression: float
    passed: bool
    rows: tuple[GateRow, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Benchmark:
    """What bench.json says. `machine`, `versions` and `settings` are shown as they are."""

    rows: tuple[BenchRow, ...]
    machine: Mapping[str, Any]
    versions: Mapping[str, Any]
    settings: Mapping[str, Any]
    gate: Gate | None = None

    def baseline(self, row: BenchRow) -> BenchRow | None:
        """The dense row that `row` was timed with: the last one of its batch size before it."""
        found = None
        for other in self.rows:
            if other is row:
                return found
            if other.dense and other.batch == row.batch:
                found = other
        return None

    def rounds(self) -> int | None:
        """Rounds of interleaved runs, None where the file does not say."""
        value = self.settings.get("rounds")
        return value if is_whole(value) else None


def read_benchmark(path: Path, remake: str) -> Benchmark:
    """bench.json, checked; zero or negative times are refused.

    Args:
        path: the file.
        remake: command that writes it anew, for the error.

    Raises:
        InputError: not JSON, of another schema, or a field missing or of another kind.
    """
    found = open_document(path, (BENCH_SCHEMA,), remake)
    return Benchmark(
        rows=tuple(_row(row) for row in found.parts("rows")),
        machine=_mapping(found, "machine"),
        versions=_mapping(found, "versions"),
        settings=_mapping(found, "settings"),
        gate=_gate(judged) if (judged := found.optional_part("baseline")) else None,
    )


def open_document(path: Path, schemas: Sequence[str], remake: str) -> Fields:
    """A JSON object of one of `schemas`.

    Raises:
        InputError: not JSON, or of another schema.
    """
    document = read_json(path, f"Make it again: {remake}")
    if document.get("schema") not in schemas:
        raise InputError(
            f"{path} has schema {document.get('schema')!r}, not {schemas[0]!r}.", f"Make it again: {remake}"
        )
    return Fields(document, path, remake)


def _row(row: Fields) -> BenchRow:
    batch = row.whole("batch")
    if batch == 0:
        raise row.refuse("batch", "a positive number")
    return BenchRow(
        name=row.name("name"),
        backend=row.text("backend"),
        precision=row.text("precision"),
        batch=batch,
        p50_ms=row.positive("p50_ms"),
        p90_ms=row.positive("p90_ms"),
        p99_ms=row.positive("p99_ms"),
        images_per_s=row.positive("images_per_s"),
        gmacs=row.positive("gmacs"),
        speedup=row.positive("speedup"),
        speedup_low=row.optional_positive("speedup_low"),
        speedup_high=row.optional_positive("speedup_high"),
        realised_fraction=row.positive("realised_fraction"),
        calls=None if row.values.get("calls") is None else row.whole("calls"),
    )


def _gate(found: Fields) -> Gate:
    rows = [
        GateRow(
            name=row.name("name"),
            backend=row.text("backend"),
            precision=row.text("precision"),
            batch=row.whole("batch"),
            baseline=row.positive("baseline"),
            speedup=row.optional_positive("speedup"),
            verdict=row.text("verdict"),
        )
        for row in found.parts("rows")
    ]
    return Gate(
        file=found.text("file"),
        max_regression=found.number("max_regression"),
        passed=found.flag("passed"),
        rows=tuple(rows),
        notes=found.texts("notes"),
    )


def _mapping(found: Fields, key: str) -> Mapping[str, Any]:
    return found.part(key).values if found.values.get(key) is not None else {}
