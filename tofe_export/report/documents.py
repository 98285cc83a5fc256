"""verify.json and bench.json as checked values: a file of another kind or with a hole is refused by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tofe_export.artifacts.files import read_json
from tofe_export.errors import InputError

VERIFY_SCHEMA = "tofe-export/verify/1"
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
class Drift:
    """Differences of logits: largest and mean absolute, and the smallest cosine similarity of an image."""

    max_abs: float
    mean_abs: float
    cosine_min: float


@dataclass(frozen=True)
class StageDrift:
    """One stage: share of kept tokens both chose, and the largest difference of a token on the same selection."""

    index: int
    overlap: float
    max_abs: float | None


@dataclass(frozen=True)
class Verification:
    """What verify.json says; accuracies are shares 0..1, None where the images had no labels.

    `keep` are the keep counts of the model that was compared, empty where the file does not say. A model exported for
    its features alone has no logits and so no class to agree on.
    """

    passed: bool
    model: str
    against: str
    data: str
    samples: int
    top1_agreement: float | None
    accuracy_reference: float | None
    accuracy_deployed: float | None
    logits: Drift | None
    same_selection: Drift | None
    stages: tuple[StageDrift, ...]
    failures: tuple[str, ...]
    keep: tuple[int, ...] = ()
    features_max_abs: float | None = None


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
class Benchmark:
    """What bench.json says. `machine`, `versions` and `settings` are shown as they are."""

    rows: tuple[BenchRow, ...]
    machine: Mapping[str, Any]
    versions: Mapping[str, Any]
    settings: Mapping[str, Any]

    @property
    def headline(self) -> BenchRow | None:
        """The row to quote: the smallest batch, where token reduction has it hardest; the fastest model there."""
        rows = [row for row in self.rows if not row.dense]
        return min(rows, key=lambda row: (row.batch, -row.speedup), default=None)


def read_verification(path: Path, remake: str) -> Verification:
    """verify.json, checked.

    Args:
        path: the file.
        remake: command that writes it anew, for the error.

    Raises:
        InputError: not JSON, of another schema, or a field missing or of another kind.
    """
    found = _open(path, VERIFY_SCHEMA, remake)
    accuracy = found.part("accuracy") if found.values.get("accuracy") is not None else None
    logits, same, features = (
        found.part(name) if found.values.get(name) else None for name in ("logits", "logits_same_selection", "features")
    )
    return Verification(
        passed=found.flag("passed"),
        model=found.text("model"),
        against=found.text("against"),
        data=found.text("data"),
        samples=int(found.number("samples")),
        top1_agreement=found.number("top1_agreement") if logits else None,
        accuracy_reference=accuracy.number("reference") if accuracy else None,
        accuracy_deployed=accuracy.number("deployed") if accuracy else None,
        logits=_drift(logits) if logits else None,
        same_selection=_drift(same) if same else None,
        features_max_abs=features.number("max_abs") if features else None,
        stages=tuple(
            StageDrift(
                int(stage.number("index")),
                stage.number("selection_overlap"),
                stage.optional_number("max_abs_same_selection"),
            )
            for stage in found.parts("stages")
        ),
        failures=tuple(str(sentence) for sentence in found.values.get("failures") or ()),
        keep=tuple(int(count) for count in found.values.get("keep") or () if isinstance(count, int)),
    )


def read_benchmark(path: Path, remake: str) -> Benchmark:
    """bench.json, checked. Arguments and errors as in `read_verification`; zero or negative times are refused."""
    found = _open(path, BENCH_SCHEMA, remake)
    return Benchmark(
        rows=tuple(_row(row) for row in found.parts("rows")),
        machine=_mapping(found, "machine"),
        versions=_mapping(found, "versions"),
        settings=_mapping(found, "settings"),
    )


def _open(path: Path, schema: str, remake: str) -> Fields:
    document = read_json(path)
    if document.get("schema") != schema:
        raise InputError(f"{path} has schema {document.get('schema')!r}, not {schema!r}.", f"Make it again: {remake}")
    return Fields(document, path, remake)


def _drift(found: Fields) -> Drift:
    # verify writes null for what is not finite.
    largest, mean = (
        math.inf if (value := found.optional_number(key)) is None else value for key in ("max_abs", "mean_abs")
    )
    return Drift(largest, mean, found.number("cosine_min"))


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


def _mapping(found: Fields, key: str) -> Mapping[str, Any]:
    return found.part(key).values if found.values.get(key) is not None else {}
