"""tune.json: keep counts that were measured on a machine, what each costs and gives, and the ones to take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tofe_export.documents.base import Document, Part
from tofe_export.documents.fields import Amount, Count, Flag, NotNegative, Positive, Share, Target, Text
from tofe_export.documents.images import ImagesRead
from tofe_export.documents.machine import Machine
from tofe_export.documents.manifest import FileIdentity, NetworkConfig
from tofe_export.documents.onnx_options import SessionSettings

Keep = tuple[Positive, ...]
Milliseconds = Annotated[float, Field(strict=True, ge=1e-9, lt=1e12)]
"""More than no time at all, so that it can be divided by."""


class TuneSettings(Part):
    """What was tuned for, and how.

    Attributes:
        target: the runtime.
        data, samples: images that keep counts were judged by.
        latency_ms, speedup, macs: the goal, of which one is set: a latency, a speed-up over the dense backbone in the
            same form, or a share of its multiply-accumulates.
    """

    target: Target
    batch: Positive
    threads: Positive
    processes: Positive
    rounds: Positive
    data: Text
    samples: Positive
    latency_ms: Amount | None = None
    speedup: Amount | None = None
    macs: Share | None = None


class Step(Part):
    """How long one matrix product takes with a number of kept tokens; `efficient` ones fill the kernel's tiles."""

    count: Positive
    ms: Milliseconds
    efficient: Flag


class Probe(Part):
    """Keep counts that were timed to learn what tokens cost in each stage."""

    keep: Keep
    ms: Milliseconds


class TunedCounts(Part):
    """Keep counts that were judged and timed.

    Attributes:
        macs_ratio: multiply-accumulates, as a share of the dense backbone's.
        predicted_ms: latency by the model that was fitted to the probes.
        agreement: share of images with the class of the reference: the threshold path, or all tokens where scores have
            no threshold.
        accuracy: share of images with the right class, where that is known.
        ms, speedup, speedup_low, speedup_high: as timed; None where it was not yet.
        on_front: no other counts are both faster and better.
    """

    keep: Keep
    macs_ratio: Amount
    predicted_ms: Milliseconds
    agreement: Share | None = None
    accuracy: Share | None = None
    ms: Milliseconds | None = None
    speedup: Amount | None = None
    speedup_low: Amount | None = None
    speedup_high: Amount | None = None
    on_front: Flag = False

    @property
    def score(self) -> float:
        """What counts are compared by: accuracy where it is known, else agreement."""
        return self.agreement or 0.0 if self.accuracy is None else self.accuracy


class Tuning(Document):
    """What `tune` learned.

    Attributes:
        checkpoint, weights_sha256, config: what the counts are for; without `config` in documents of older versions.
        staircase: latency over kept tokens of one matrix product.
        dense_ms: latency of the dense backbone in the same form.
        lost: per stage, for each number of kept tokens 0..N, the share of the tokens that matter and are not kept.
        finished: nothing is left to do.
        reached: the goal is met by `keep`; None before the end.
        keep: the counts to take.
        session: parameters of ONNX Runtime that were fastest, where that is the target.
    """

    schema_: Literal["tofe-export/tune/1"] = Field(default="tofe-export/tune/1", alias="schema")
    machine: Machine = Machine()
    versions: dict[Text, Text] = {}
    checkpoint: FileIdentity
    weights_sha256: Text
    config: NetworkConfig | None = None
    tokens: Positive
    prefix: Count
    settings: TuneSettings
    staircase: tuple[Step, ...] = ()
    dense_ms: Milliseconds | None = None
    probes: tuple[Probe, ...] = ()
    lost: tuple[tuple[NotNegative, ...], ...] = ()
    candidates: tuple[TunedCounts, ...] = ()
    images: ImagesRead | None = None
    finished: Flag = False
    reached: Flag | None = None
    keep: Keep = ()
    session: SessionSettings | None = None

    @property
    def picked(self) -> TunedCounts | None:
        """The candidate whose counts are `keep`."""
        return next((one for one in self.candidates if one.keep == self.keep), None)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        keeps = [*(one.keep for one in self.probes), *(one.keep for one in self.candidates)]
        keeps += [self.keep] if self.keep else []
        if len({len(keep) for keep in keeps}) > 1:
            raise ValueError("keep: it should have one count per stage")
        if any(count > self.tokens for keep in keeps for count in keep):
            raise ValueError(f"keep: there are only {self.tokens} tokens")
        counts = [step.count for step in self.staircase]
        if counts and (len(counts) != self.tokens or any(here != last + 1 for last, here in enumerate(counts))):
            raise ValueError("staircase: it should have one step for each number of tokens")
        if counts and not any(step.efficient for step in self.staircase):
            raise ValueError("staircase: one step at least should be efficient")
        if any(len(row) != self.tokens + 1 for row in self.lost):
            raise ValueError("lost: it should have one share for each number of tokens, and for none")
        if self.probes and (self.dense_ms is None or not self.staircase):
            raise ValueError("probes: they are measured after the staircase and beside the dense backbone")
        if self.finished and self.picked is None:
            raise ValueError("keep: it should be one of the candidates")
        return self


def unfinished_path(result: Path) -> Path:
    """Where a tuning lies until it is finished: beside its result."""
    return result.with_name(f"{result.name}.unfinished")
