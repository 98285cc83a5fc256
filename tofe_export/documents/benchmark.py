"""bench.json: how fast models run beside their dense backbone, and what a recorded run says of it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from tofe_export.documents.base import Document, Part
from tofe_export.documents.fields import Amount, Count, Flag, Name, Number, Positive, Share, Text
from tofe_export.documents.machine import Machine

RowKey = tuple[str, str, str, int]
GateVerdict = Literal["held", "unsure", "regressed", "not timed"]
"""Of a speed-up: not lost, perhaps lost within noise, surely lost, not measured again."""


class BenchRow(Part):
    """One model at one batch size.

    Attributes:
        calls: how many calls of all processes the percentiles are of; None where an older document does not say.
        p50_ms, p90_ms, p99_ms: percentiles of the latency of one call; p90 is None below 100 calls, p99 below 1000.
        gmacs: of one image.
        speedup: against the dense backbone in the same rounds, with its 95% interval over processes; a single process
            has none. In older documents the interval is over the rounds of one process.
        speedups: that of each process.
        processes: how many; None where an older document does not say.
        realised_fraction: speedup divided by (dense GMACs / GMACs).
        efficiency: MACs per second, as a share of the fastest matrix product on this backend in this precision in the
            same processes; None where the backend has no such product, or none was timed.
        dense: whether this is the dense backbone.
        model_sha256: of the file; "" for the dense backbone and where there is no file.
    """

    name: Name
    backend: Text = ""
    precision: Text = ""
    batch: Positive
    calls: Count | None = None
    p50_ms: Amount
    p90_ms: Amount | None = None
    p99_ms: Amount | None = None
    images_per_s: Amount
    gmacs: Amount
    speedup: Amount
    speedup_low: Amount | None = None
    speedup_high: Amount | None = None
    speedups: tuple[Amount, ...] = ()
    processes: Count | None = None
    realised_fraction: Amount
    efficiency: Amount | None = None
    dense: Flag
    model_sha256: Text = ""

    @property
    def subject(self) -> tuple[str, str, str]:
        """What was timed, at whatever batch size: name, backend and precision."""
        return self.name, self.backend, self.precision

    @property
    def key(self) -> RowKey:
        """What makes the rows of two runs the same row."""
        return self.name, self.backend, self.precision, self.batch

    @model_validator(mode="before")
    @classmethod
    def _of_older_versions(cls, row: Any) -> Any:
        """They did not say `dense`: compared with itself, the backbone is exactly as fast, without an interval."""
        if isinstance(row, dict) and "dense" not in row:
            ratios = {row.get(name) for name in ("speedup_low", "speedup_high") if isinstance(row.get(name), float)}
            dense = row.get("speedup") == row.get("realised_fraction") == 1.0 and ratios <= {1.0}
            return {**row, "dense": dense}
        return row


class GateRow(Part):
    """A row of the recorded run and what became of its speed-up; None where it was not timed again."""

    name: Name
    backend: Text = ""
    precision: Text = ""
    batch: Count
    baseline: Amount
    speedup: Amount | None = None
    low: Amount | None = None
    high: Amount | None = None
    change: Number | None = None
    verdict: GateVerdict

    @property
    def failure(self) -> str:
        """What became of the row, for a sentence; "" where it does not fail the gate."""
        if self.verdict == "not timed":
            return "was not timed now"
        if self.verdict == "regressed" and self.speedup is not None:
            now = f"is {self.speedup:.2f} times as fast as its dense backbone"
            interval = "" if self.low is None or self.high is None else f" (interval {self.low:.2f} to {self.high:.2f})"
            return f"{now}{interval}, and was {self.baseline:.2f}: {1 - self.speedup / self.baseline:.1%} less"
        return ""


class Gate(Part):
    """What a recorded run says; `max_regression` is the share of a speed-up that may be lost."""

    file: Text
    max_regression: Share
    passed: Flag
    rows: tuple[GateRow, ...]
    notes: tuple[Text, ...] = ()

    @property
    def failures(self) -> tuple[str, ...]:
        """One sentence per row that fails the gate."""
        sentences = []
        for row in self.rows:
            subject = f"{row.name} ({row.backend}, {row.precision}) at batch {row.batch}"
            if row.verdict == "not timed":
                sentences.append(f"{subject} is in {self.file}, but {row.failure}.")
            elif row.failure:
                sentences.append(f"{subject} {row.failure}, where {self.max_regression:.1%} is allowed.")
        return tuple(sentences)


class BenchSettings(Part):
    """How models were timed; None where an older document does not say.

    Attributes:
        rounds: of each process, at each batch size.
        seed: of the orders in which models ran.
        warm_up_calls: unmeasured calls before those of each block.
    """

    threads: Count | None = None
    rounds: Count | None = None
    batches: tuple[Positive, ...] = ()
    processes: Count | None = None
    seed: Count | None = None
    warm_up_calls: Count | None = None


class Benchmark(Document):
    """Every row, the dense backbone of each group first, and the machine it was measured on."""

    schema_: Literal["tofe-export/bench/1"] = Field(default="tofe-export/bench/1", alias="schema")
    machine: Machine = Machine()
    versions: dict[Text, Text] = {}
    settings: BenchSettings = BenchSettings()
    rows: tuple[BenchRow, ...]
    baseline: Gate | None = None

    def dense_of(self, row: BenchRow) -> BenchRow | None:
        """The dense row that `row` was timed with: the last one of its batch size before it."""
        dense = None
        for other in self.rows:
            if other is row:
                return dense
            if other.dense and other.batch == row.batch:
                dense = other
        return None
