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
        return float(value)

    def optional_number(self, key: str) -> float | None:
        """A number, or None where the file has none."""
        return None if self.values.get(key) is None else self.number(key)

    def text(self, key: str) -> str:
        """A text; "" where the file has none."""
        return str(self.values.get(key, ""))

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
        """A required whole number."""
        return int(self.number(key))

    def parts(self, key: str) -> list[Fields]:
        """A required list of objects."""
        value = self.values.get(key)
        if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
            raise self.refuse(key, "a list of objects")
        return [Fields(item, self.path, self.remake) for item in value]

    def refuse(self, key: str, wanted: str) -> InputError:
        """The error for a field that is missing or of another kind."""
        return InputError(f"{self.path} cannot be used: its {key!r} is not {wanted}.", f"Make it again: {self.remake}")


@dataclass(frozen=True)
class BenchRow:
    """One model at one batch size; times in milliseconds, gmacs of one image, speedup against the dense row."""

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

    @property
    def dense(self) -> bool:
        """Whether this is the baseline of its run: compared with itself, it gains and costs exactly nothing."""
        return self.speedup == 1.0 and self.realised_fraction == 1.0


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
    document = read_json(path)
    if document.get("schema") not in schemas:
        raise InputError(
            f"{path} has schema {document.get('schema')!r}, not {schemas[0]!r}.", f"Make it again: {remake}"
        )
    return Fields(document, path, remake)


def _row(row: Fields) -> BenchRow:
    for key in ("batch", "p50_ms", "images_per_s", "gmacs", "speedup", "realised_fraction"):
        value = row.number(key)
        if not (math.isfinite(value) and value > 0):
            raise row.refuse(key, "a positive number")
    return BenchRow(
        name=row.text("name"),
        backend=row.text("backend"),
        precision=row.text("precision"),
        batch=int(row.number("batch")),
        p50_ms=row.number("p50_ms"),
        p90_ms=row.number("p90_ms"),
        p99_ms=row.number("p99_ms"),
        images_per_s=row.number("images_per_s"),
        gmacs=row.number("gmacs"),
        speedup=row.number("speedup"),
        speedup_low=row.optional_number("speedup_low"),
        speedup_high=row.optional_number("speedup_high"),
        realised_fraction=row.number("realised_fraction"),
    )


def _gate(found: Fields) -> Gate:
    rows = [
        GateRow(
            name=row.text("name"),
            backend=row.text("backend"),
            precision=row.text("precision"),
            batch=row.whole("batch"),
            baseline=row.number("baseline"),
            speedup=row.optional_number("speedup"),
            verdict=row.text("verdict"),
        )
        for row in found.parts("rows")
    ]
    return Gate(
        file=found.text("file"),
        max_regression=found.number("max_regression"),
        passed=found.flag("passed"),
        rows=tuple(rows),
        notes=tuple(map(str, found.values.get("notes") or ())),
    )


def _mapping(found: Fields, key: str) -> Mapping[str, Any]:
    return found.part(key).values if found.values.get(key) is not None else {}
