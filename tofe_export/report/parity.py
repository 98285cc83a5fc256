"""The comparison with PyTorch as texts: an overview of all artefacts, and the tables of each."""

from __future__ import annotations

from dataclasses import dataclass

from tofe_export.errors import count
from tofe_export.report import wording
from tofe_export.report.verification import Drift, Evidence, StageDrift, Threshold, Verification


@dataclass(frozen=True)
class ArtefactLine:
    """One row of the overview; `tone` is "good", "bad" or "open"."""

    model: str
    how: str
    agreement: str
    accuracy: str
    difference: str
    kl: str
    overlap: str
    verdict: str
    tone: str


@dataclass(frozen=True)
class ArtefactParity:
    """The tables of one artefact.

    Attributes:
        model: its file.
        passed: no limit was broken; None where it could not run.
        intro: what was compared, on what.
        summary: (what, reference, deployed) of whole-model figures.
        drift: (which selection, max, mean, cosine, KL) of the logits.
        stages: (stage, overlap, flipped tokens, largest difference, of frozen tokens, first module beyond the limit).
        failures: sentences.
        notes: what a reader should know, such as limits that were the user's own.
    """

    model: str
    passed: bool | None
    intro: str
    summary: list[tuple[str, str, str]]
    drift: list[tuple[str, str, str, str, str]]
    stages: list[tuple[str, str, str, str, str, str]]
    failures: tuple[str, ...]
    notes: list[str]


@dataclass(frozen=True)
class ThresholdTable:
    """What fixed keep counts cost: a sentence, and (what, threshold path, fixed path)."""

    intro: str
    rows: list[tuple[str, str, str]]


def overview(evidence: Evidence) -> list[ArtefactLine]:
    """One row per artefact; none for a single one, which has its own tables."""
    return [_line(found) for found in evidence.artefacts] if len(evidence.artefacts) > 1 else []


def artefact_tables(evidence: Evidence) -> list[ArtefactParity]:
    """The tables of every artefact."""
    return [_tables(found) for found in evidence.artefacts]


def threshold_table(found: Threshold) -> ThresholdTable:
    """The fixed path beside the threshold path."""
    rows = []
    if found.accuracy_threshold is not None and found.accuracy_fixed is not None:
        rows.append(("Accuracy", wording.percent(found.accuracy_threshold), wording.percent(found.accuracy_fixed)))
    cost = [wording.percent(value / found.gmacs_dense) for value in (found.gmacs_threshold, found.gmacs_fixed)]
    rows.append(("Cost, dense = 100\u202f%", f"{cost[0]} (mean)", cost[1]))
    rows += [(f"Tokens kept in stage {s.index}", f"{s.mean:.1f} (mean)", str(s.keep)) for s in found.stages]
    intro = (
        f"The fixed path gives {wording.percent(found.agreement)} of {count(found.samples, 'image')} the class "
        "of the threshold path."
    )
    return ThresholdTable(intro, rows)


def _line(found: Verification) -> ArtefactLine:
    verdict, tone = {
        True: ("passed", "good"),
        False: ("cannot be used" if found.error else "failed", "bad"),
        None: ("not checked", "open"),
    }[found.passed]
    logits, overlap = found.logits, found.least_overlap
    return ArtefactLine(
        model=found.model,
        how=wording.how(found.backend, found.precision),
        agreement=_share(found.top1_agreement),
        accuracy=_share(found.accuracy_deployed),
        difference=wording.difference(logits.max_abs if logits else None),
        kl=wording.difference(logits.kl_mean if logits else None),
        overlap=_share(overlap, 2),
        verdict=verdict,
        tone=tone,
    )


def _tables(found: Verification) -> ArtefactParity:
    summary = []
    if found.accuracy_reference is not None and found.accuracy_deployed is not None:
        reference, deployed = wording.percent(found.accuracy_reference), wording.percent(found.accuracy_deployed)
        summary.append(("Accuracy", reference, deployed))
    if found.top1_agreement is not None:
        summary.append(("Same class", "–", wording.percent(found.top1_agreement)))
    drift = [] if found.logits is None else [_drift("Each its own selection", found.logits)]
    if found.same_selection is not None:
        drift.append(_drift("PyTorch on the deployed selection", found.same_selection))
    for what, worst in (
        ("Features on the deployed selection", found.features_max_abs),
        ("Features, each its own selection", found.own_features_max_abs),
    ):
        if worst is not None:
            drift.append((what, wording.difference(worst), "–", "–", "–"))
    notes = [f"Not checked: {sentence}" for sentence in found.not_checked]
    if found.stages_of_twin:
        notes.append("The engine was built without taps: the stages are those of a twin that was built to compare.")
    if found.next_step:
        notes.append(f"Next: {found.next_step}")
    notes += [f"The limit {name} = {value:g} was set by hand." for name, value in found.overridden]
    images = count(found.samples, "image") + (f" of {found.data}" if found.data else "")
    intro = found.error or f"{found.model} against {found.against or 'its checkpoint'}, on {images}."
    stages = [_stage(stage) for stage in found.stages]
    return ArtefactParity(found.model, found.passed, intro, summary, drift, stages, found.failures, notes)


def _stage(stage: StageDrift) -> tuple[str, str, str, str, str, str]:
    flipped = "–" if stage.flipped is None else str(stage.flipped)
    if stage.flipped:
        flipped += f", to {wording.difference(stage.margin)}"
    return (
        f"Stage {stage.index}",
        wording.percent(stage.overlap, 2),
        flipped,
        wording.difference(stage.max_abs),
        wording.difference(stage.max_abs_frozen),
        stage.first_module or "–",
    )


def _drift(what: str, found: Drift) -> tuple[str, str, str, str, str]:
    return (
        what,
        wording.difference(found.max_abs),
        wording.difference(found.mean_abs),
        wording.cosine(found.cosine_min),
        wording.difference(found.kl_mean),
    )


def _share(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else wording.percent(value, digits)
