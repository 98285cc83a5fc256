"""The comparison with PyTorch as tables: an overview of all artifacts, and the figures of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tofe_export.documents.verification import LogitsDrift, StageDrift, ThresholdComparison, Verification
from tofe_export.errors import count
from tofe_export.page import wording
from tofe_export.page.tables import Row, Table, Toned

_OVERVIEW = (
    *("Artifact", "same class\nas PyTorch", "accuracy", "logits differ\nat most", "KL, nats\n(mean)"),
    *("least\noverlap", "verdict"),
)
_STAGES = (
    *("Token selection", "same tokens\nkept", "flipped,\nmargin", "largest\ndifference", "of frozen\ntokens"),
    "first module\nbeyond the limit",
)
_DRIFT = "Difference of the outputs", "largest", "mean", "smallest cosine", "KL, nats"


@dataclass(frozen=True)
class ArtifactParity:
    """What the page shows of one artifact.

    Attributes:
        model: its file.
        passed: no limit was broken; None where it could not run.
        intro: what was compared, on what.
        failures: sentences.
        notes: what a reader should know, such as limits that were the user's own.
        tables: answers, stages and outputs, as far as they were compared.
    """

    model: str
    passed: bool | None
    intro: str
    failures: tuple[str, ...]
    notes: list[str]
    tables: list[Table]


def overview(artifacts: Sequence[Verification]) -> Table | None:
    """One row per artifact; None for a single one, which has its own tables."""
    if len(artifacts) < 2:
        return None
    return Table.of("All artifacts", _OVERVIEW, [_overview_row(artifact) for artifact in artifacts])


def artifact_parity(artifact: Verification) -> ArtifactParity:
    """The tables of one artifact, and the sentences around them."""
    notes = [f"Not checked: {sentence}" for sentence in artifact.unjudged]
    if artifact.stages_of == "twin":
        notes.append("The engine was built without taps: the stages are those of a twin that was built to compare.")
    if artifact.error and artifact.error.next_step:
        notes.append(f"Next: {artifact.error.next_step}")
    notes += [f"The limit {name} = {value:g} was set by hand." for name, value in artifact.overridden.items()]
    images = count(artifact.samples, "image") + (f" of {artifact.data}" if artifact.data else "")
    intro = f"{artifact.model} against {artifact.against or 'its checkpoint'}, on {images}."
    return ArtifactParity(
        model=artifact.model,
        passed=artifact.passed,
        intro=artifact.error.message if artifact.error else intro,
        failures=artifact.failures,
        notes=notes,
        tables=[
            table
            for table in (
                Table.of(f"Answers of {artifact.model}", ("Answers", "PyTorch", "deployed"), _answers(artifact), True),
                Table.of(f"Stages of {artifact.model}", _STAGES, [_stage(stage) for stage in artifact.stages]),
                Table.of(f"Differences of the outputs of {artifact.model}", _DRIFT, _outputs(artifact)),
            )
            if table.groups[0][1]
        ],
    )


def threshold_table(comparison: ThresholdComparison) -> Table:
    """The fixed path beside the threshold path."""
    rows = []
    if comparison.accuracy is not None:
        accuracy = comparison.accuracy
        rows.append(Row("Accuracy", (wording.percent(accuracy.threshold), wording.percent(accuracy.fixed))))
    gmacs = comparison.gmacs
    cost = [wording.percent(value / gmacs.dense) for value in (gmacs.threshold, gmacs.fixed)]
    rows.append(Row("Cost, dense = 100\u202f%", (f"{cost[0]} (mean)", cost[1])))
    rows += [
        Row(f"Tokens kept in stage {stage.index}", (f"{stage.kept_mean:.1f} (mean)", str(stage.keep)))
        for stage in comparison.stages
    ]
    return Table.of("Threshold path and fixed path", ("", "threshold path", "fixed path"), rows, narrow=True)


def largest_difference(drift: LogitsDrift) -> str:
    """The largest difference of a logit in words."""
    return _measured(drift.max_abs)


def _measured(value: float | None) -> str:
    """Of what was measured: null is then what is not finite."""
    return wording.difference(math.inf if value is None else value)


def _kl(drift: LogitsDrift) -> str:
    """Documents of older versions do not say it."""
    return _measured(drift.kl_mean) if "kl_mean" in drift.model_fields_set else wording.NOTHING


def _overview_row(artifact: Verification) -> Row:
    verdict = {
        True: Toned("passed", "good"),
        False: Toned("cannot be used" if artifact.error else "failed", "bad"),
        None: Toned("not checked", "open"),
    }[artifact.passed]
    logits = artifact.logits
    values = (
        wording.percent(artifact.top1_agreement),
        wording.percent(artifact.accuracy.deployed if artifact.accuracy else None),
        largest_difference(logits) if logits else wording.NOTHING,
        _kl(logits) if logits else wording.NOTHING,
        wording.percent(artifact.least_overlap, 2),
        verdict,
    )
    return Row(artifact.model, values, wording.how(artifact.backend, artifact.precision))


def _answers(artifact: Verification) -> list[Row]:
    rows = []
    if artifact.accuracy is not None:
        reference, deployed = wording.percent(artifact.accuracy.reference), wording.percent(artifact.accuracy.deployed)
        rows.append(Row("Accuracy", (reference, deployed)))
    if artifact.top1_agreement is not None:
        rows.append(Row("Same class", (wording.NOTHING, wording.percent(artifact.top1_agreement))))
    return rows


def _stage(stage: StageDrift) -> Row:
    flipped = wording.NOTHING if stage.flips is None else str(stage.flips.tokens)
    if stage.flips and stage.flips.tokens:
        flipped += f", to {wording.difference(stage.flips.margin_max)}"
    values = (
        wording.percent(stage.selection_overlap, 2),
        flipped,
        wording.difference(stage.max_abs_same_selection if stage.finite else math.inf),
        wording.difference(stage.of_frozen.max_abs),
        stage.first_module.name if stage.first_module else wording.NOTHING,
    )
    return Row(f"Stage {stage.index}", values)


def _outputs(artifact: Verification) -> list[Row]:
    rows = []
    for name, logits in (
        ("Each its own selection", artifact.logits),
        ("PyTorch on the deployed selection", artifact.logits_same_selection),
    ):
        if logits is not None:
            differences = largest_difference(logits), _measured(logits.mean_abs)
            rows.append(Row(name, (*differences, wording.cosine(logits.cosine_min), _kl(logits))))
    for name, features in (
        ("Features on the deployed selection", artifact.features),
        ("Features, each its own selection", artifact.own_features),
    ):
        if features is not None:
            rows.append(Row(name, (_measured(features.max_abs), *[wording.NOTHING] * 3)))
    return rows
