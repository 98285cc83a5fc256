"""verify.json as checked values, of one artefact or of several. What older files do not say is None or empty."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tofe_export.report.documents import Fields, is_whole, open_document

SCHEMA, SCHEMA_SEVERAL = "tofe-export/verify/1", "tofe-export/verify-several/1"


@dataclass(frozen=True)
class Drift:
    """Differences of logits: largest and mean absolute, the smallest cosine of an image, mean KL divergence in nats."""

    max_abs: float
    mean_abs: float
    cosine_min: float
    kl_mean: float | None = None


@dataclass(frozen=True)
class StageDrift:
    """One stage.

    Attributes:
        index: stage number.
        overlap: share of kept tokens that both chose.
        max_abs, max_abs_frozen: largest difference on the same selection, of any token and of frozen ones.
        flipped, margin: tokens on which the choices differ, and how far the farthest is from the k-th score.
        first_module: PyTorch name of the first module beyond the tolerance, "" where there is none.
    """

    index: int
    overlap: float
    max_abs: float | None
    max_abs_frozen: float | None = None
    flipped: int | None = None
    margin: float | None = None
    first_module: str = ""


@dataclass(frozen=True)
class ThresholdStage:
    """Tokens that the threshold path keeps of each image in one stage; `histogram` is (tokens, images), ascending."""

    index: int
    keep: int
    mean: float
    histogram: tuple[tuple[int, int], ...]
    overlap: float


@dataclass(frozen=True)
class Threshold:
    """The fixed path against the threshold path; accuracies are None where the images had no labels."""

    samples: int
    agreement: float
    accuracy_threshold: float | None
    accuracy_fixed: float | None
    gmacs_threshold: float
    gmacs_fixed: float
    gmacs_dense: float
    stages: tuple[ThresholdStage, ...]


@dataclass(frozen=True)
class Verification:
    """What verify.json says of one artefact; accuracies are shares 0..1, None where the images had no labels.

    `passed` is None where it could not run. `keep` are the keep counts of the model that was compared, empty where the
    file does not say. A model exported for its features alone has no logits and so no class to agree on. `not_checked`
    are sentences on what could not be looked at; the stages may be those of a twin that was built beside an engine.
    """

    passed: bool | None
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
    model_sha256: str = ""
    features_max_abs: float | None = None
    own_features_max_abs: float | None = None
    precision: str = ""
    backend: str = ""
    gmacs: float | None = None
    dense_gmacs: float | None = None
    overridden: tuple[tuple[str, float], ...] = ()
    threshold: Threshold | None = None
    error: str = ""
    next_step: str = ""
    not_checked: tuple[str, ...] = ()
    stages_of_twin: bool = False

    @property
    def least_overlap(self) -> float | None:
        """Of the stage where it is least; None where no stage is in view."""
        return min((stage.overlap for stage in self.stages), default=None)


@dataclass(frozen=True)
class Evidence:
    """Every artefact that was verified, in the order of the file."""

    artefacts: tuple[Verification, ...] = field(default=())

    def of(self, model: str) -> Verification | None:
        """The artefact of that file name, else the first."""
        named = [found for found in self.artefacts if found.model == model]
        return next(iter([*named, *self.artefacts]), None)


def read_verification(path: Path, remake: str) -> Evidence:
    """verify.json, checked.

    Args:
        path: the file.
        remake: command that writes it anew, for the error.

    Raises:
        InputError: not JSON, of another schema, or a field missing or of another kind.
    """
    found = open_document(path, (SCHEMA, SCHEMA_SEVERAL), remake)
    several = found.values["schema"] == SCHEMA_SEVERAL
    return Evidence(tuple(_artefact(part) for part in (found.parts("artefacts") if several else [found])))


def _artefact(found: Fields) -> Verification:
    error = found.optional_part("error")
    if error is not None:
        passed = None if found.values.get("passed") is None else found.flag("passed")
        nothing = (None, None, None, None, None, (), found.texts("failures"))
        return Verification(
            passed,
            found.name("model"),
            found.text("against"),
            "",
            0,
            *nothing,
            error=error.text("message"),
            next_step=error.text("next_step"),
        )
    accuracy, logits, same, features, threshold = (
        found.optional_part(name) for name in ("accuracy", "logits", "logits_same_selection", "features", "threshold")
    )
    overridden, own_features = found.optional_part("overridden"), found.optional_part("own_features")
    return Verification(
        passed=found.flag("passed"),
        model=found.name("model"),
        against=found.text("against"),
        data=found.text("data"),
        samples=found.whole("samples"),
        top1_agreement=found.number("top1_agreement") if logits else None,
        accuracy_reference=accuracy.number("reference") if accuracy else None,
        accuracy_deployed=accuracy.number("deployed") if accuracy else None,
        logits=_drift(logits) if logits else None,
        same_selection=_drift(same) if same else None,
        stages=tuple(_stage(stage) for stage in found.parts("stages")),
        failures=found.texts("failures"),
        keep=found.wholes("keep"),
        model_sha256=found.text("model_sha256"),
        features_max_abs=_or_infinite(features, "max_abs") if features else None,
        own_features_max_abs=_or_infinite(own_features, "max_abs") if own_features else None,
        precision=found.text("precision"),
        backend=found.text("backend"),
        gmacs=found.optional_positive("gmacs"),
        dense_gmacs=found.optional_positive("dense_gmacs"),
        overridden=tuple((name, overridden.number(name)) for name in overridden.values) if overridden else (),
        threshold=_threshold(threshold) if threshold else None,
        not_checked=tuple(
            check.text("message")
            for check in (found.parts("checks") if found.values.get("checks") else ())
            if check.values.get("passed") is None
        ),
        stages_of_twin=found.text("stages_of") == "twin",
    )


def _drift(found: Fields) -> Drift:
    known = "kl_mean" in found.values
    return Drift(
        _or_infinite(found, "max_abs"),
        _or_infinite(found, "mean_abs"),
        found.number("cosine_min"),
        _or_infinite(found, "kl_mean") if known else None,
    )


def _or_infinite(found: Fields, key: str) -> float:
    """A number; verify writes null for what is not finite."""
    value = found.optional_number(key)
    return math.inf if value is None else value


def _stage(found: Fields) -> StageDrift:
    flips, first, frozen = (found.optional_part(name) for name in ("flips", "first_module", "of_frozen"))
    return StageDrift(
        index=found.whole("index"),
        overlap=found.number("selection_overlap"),
        max_abs=math.inf if found.values.get("finite") is False else found.optional_number("max_abs_same_selection"),
        max_abs_frozen=frozen.optional_number("max_abs") if frozen else None,
        flipped=flips.whole("tokens") if flips else None,
        margin=flips.optional_number("margin_max") if flips else None,
        first_module=first.text("name") if first else "",
    )


def _threshold(found: Fields) -> Threshold:
    accuracy, gmacs = found.optional_part("accuracy"), found.part("gmacs")
    return Threshold(
        samples=found.whole("samples"),
        agreement=found.number("top1_agreement"),
        accuracy_threshold=accuracy.number("threshold") if accuracy else None,
        accuracy_fixed=accuracy.number("fixed") if accuracy else None,
        gmacs_threshold=gmacs.positive("threshold"),
        gmacs_fixed=gmacs.positive("fixed"),
        gmacs_dense=gmacs.positive("dense"),
        stages=tuple(_threshold_stage(stage) for stage in found.parts("stages")),
    )


def _threshold_stage(found: Fields) -> ThresholdStage:
    bars: Any = found.values.get("histogram") or []
    if not isinstance(bars, list) or not all(
        isinstance(bar, list) and len(bar) == 2 and all(map(is_whole, bar)) for bar in bars
    ):
        raise found.refuse("histogram", "a list of pairs of whole numbers")
    return ThresholdStage(
        index=found.whole("index"),
        keep=found.whole("keep"),
        mean=found.number("kept_mean"),
        histogram=tuple(sorted((tokens, images) for tokens, images in bars)),
        overlap=found.number("overlap"),
    )
