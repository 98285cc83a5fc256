"""verify.json: what a comparison with PyTorch showed, of one artifact or of several.

A measured value that is not finite, which JSON cannot say, is null.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field

from tofe_export.documents.base import Document, Part, read_document
from tofe_export.documents.fields import Amount, Cosine, Count, Flag, Name, NotNegative, Number, Share, Text, Whole
from tofe_export.documents.images import ImagesRead
from tofe_export.files.reading import read_json


class LogitsDrift(Part):
    """Differences of logits over all images.

    Attributes:
        max_abs, mean_abs: largest and mean difference.
        cosine_min: least cosine similarity of an image.
        kl_mean, kl_max: KL divergence of the classes' probabilities from the reference's, in nats.
    """

    max_abs: NotNegative | None
    mean_abs: NotNegative | None
    cosine_min: Cosine
    kl_mean: NotNegative | None = None
    kl_max: NotNegative | None = None


class FeaturesDrift(Part):
    """Differences of features over all images; `largest` is the reference's largest value."""

    max_abs: NotNegative | None
    cosine_min: Cosine | None = None
    largest: NotNegative | None = None


class TokensDrift(Part):
    """Largest difference of a token, absolute and as a share of the tokens' spread; None where there was no token."""

    max_abs: NotNegative | None = None
    max_relative: NotNegative | None = None


class NotFinite(Part):
    """The first image with a value that is not finite, on each side."""

    reference: Text | None = None
    deployed: Text | None = None


class StageNotFinite(Part):
    """Of a stage's scores and tokens."""

    scores: NotFinite = NotFinite()
    tokens: NotFinite = NotFinite()


class Flips(Part):
    """Tokens on which the two selections differ, in how many images, and how far from the k-th score."""

    tokens: Count
    images: Count = 0
    margin_median: Number | None = None
    margin_max: Number | None = None


class DivergingModule(Part):
    """The first PyTorch module beyond the tolerance; `max_abs` is None where its values are not finite."""

    name: Text
    max_abs: NotNegative | None = None
    allowed: NotNegative | None = None


class StageDrift(Part):
    """One stage.

    Attributes:
        selection_overlap: share of the reference's kept tokens that the deployed model kept too.
        score_gap: by how much a kept token falls short of a frozen one, in the reference's scores.
        max_abs_same_selection: largest difference of a token with the reference forced onto the same selection.
        finite: whether every token is finite, on both sides.
    """

    index: Count
    selection_overlap: Share
    score_gap: Number | None = None
    flips: Flips | None = None
    finite: Flag = True
    not_finite: StageNotFinite = StageNotFinite()
    max_abs_same_selection: NotNegative | None
    of_kept: TokensDrift = TokensDrift()
    of_frozen: TokensDrift = TokensDrift()
    first_module: DivergingModule | None = None


class Accuracy(Part):
    """Shares of the labeled images that are classified right."""

    reference: Share
    deployed: Share


class Check(Part):
    """One thing that was looked at.

    Attributes:
        name: `stage 0`, `logits`, `manifest`, ...
        passed: None where it could not be looked at; `message` then says why.
        message: "" when it passed.
    """

    name: Text
    passed: Flag | None
    message: Text = ""

    @classmethod
    def of(cls, name: str, problems: list[str]) -> Check:
        """Passed when there is no problem."""
        return cls(name=name, passed=not problems, message=" ".join(problems))


class Agreement(Part):
    """What was measured of one deployed model, and what the limits say of it.

    Attributes:
        passed: None where something could not be judged and nothing failed.
        logits, features: each model on its own selection.
        logits_same_selection: with the reference forced onto the deployed model's selection; so are `features`, and
            `own_features` are not.
        stages_of: "twin" where the stages are those of an engine built beside the deployed one.
        tolerances: the limits; `overridden` are those that the user set.
        failures: the messages of the checks that failed.
    """

    passed: Flag | None
    samples: Count
    top1_agreement: Share | None
    accuracy: Accuracy | None = None
    logits: LogitsDrift | None
    features: FeaturesDrift | None = None
    own_features: FeaturesDrift | None = None
    logits_same_selection: LogitsDrift | None = None
    stages_of: Literal["model", "twin"] | None = None
    stages: tuple[StageDrift, ...]
    first_module: DivergingModule | None = None
    tolerances: dict[Text, Number] = {}
    overridden: dict[Text, Number] = {}
    checks: tuple[Check, ...] = ()
    failures: tuple[Text, ...]

    @property
    def least_overlap(self) -> float | None:
        """Of the stage where it is least; None where no stage is in view."""
        return min((stage.selection_overlap for stage in self.stages), default=None)

    @property
    def unjudged(self) -> tuple[str, ...]:
        """Sentences on what could not be looked at."""
        return tuple(check.message for check in self.checks if check.passed is None)


class ThresholdAccuracy(Part):
    """Accuracy of the two inference paths, in PyTorch."""

    threshold: Share
    fixed: Share


class ThresholdCost(Part):
    """GMACs of an image on the threshold path (mean), on the fixed path, and of the dense backbone."""

    threshold: Amount
    fixed: Amount
    dense: Amount


class ThresholdStage(Part):
    """Tokens that the threshold path keeps of each image in one stage; `histogram` is (tokens, images), ascending."""

    index: Count
    keep: Count
    kept_mean: NotNegative
    kept_std: NotNegative = 0.0
    kept_min: Count = 0
    kept_max: Count = 0
    histogram: tuple[tuple[Count, Count], ...] = ()
    overlap: Share
    margin_median: Number | None = None


class ThresholdComparison(Part):
    """The fixed path against the threshold path, both in PyTorch; accuracy is None where the images had no labels."""

    samples: Count
    top1_agreement: Share
    kl_mean: NotNegative | None = None
    accuracy: ThresholdAccuracy | None = None
    gmacs: ThresholdCost
    stages: tuple[ThresholdStage, ...]


class Problem(Part):
    """Why an artifact could not be compared at all."""

    message: Text
    next_step: Text = ""
    exit_code: Whole = 2
    code: Text = ""


class _Subject(Document):
    """What was compared."""

    schema_: Literal["tofe-export/verify/1"] = Field(default="tofe-export/verify/1", alias="schema")
    model: Name
    model_sha256: Text = ""
    against: Text = ""
    backend: Text = ""
    exported_from_this_file: Flag = True
    data: Text = ""
    precision: Text = ""
    keep: tuple[Count, ...] = ()
    gmacs: Amount | None = None
    dense_gmacs: Amount | None = None


class Verification(Agreement, _Subject):
    """What verify says of one artifact.

    Attributes:
        model, against, data: names of the artifact, the checkpoint and the images.
        model_sha256: of the artifact; "" in documents of older versions.
        exported_from_this_file: the artifact was made of the very file it was compared with.
        keep: keep counts.
        notes: what the user should know about the comparison, a sentence each.
        error: why it could not be compared; everything measured is then empty.
    """

    threshold: ThresholdComparison | None = None
    images: ImagesRead | None = None
    notes: tuple[Text, ...] = ()
    error: Problem | None = None

    @property
    def exit_code(self) -> int:
        """0 passed, 1 failed, 2 cannot be used, 3 could not run here."""
        if self.error is not None:
            return self.error.exit_code
        return {True: 0, False: 1, None: 3}[self.passed]


class Verifications(Document):
    """What verify says of one or more artifacts, all on the same images."""

    schema_: Literal["tofe-export/verify-several/1"] = Field(default="tofe-export/verify-several/1", alias="schema")
    passed: Flag | None
    against: Text
    artifacts: tuple[Verification, ...] = Field(
        # Version 0.1.0 wrote the second.
        validation_alias=AliasChoices("artifacts", "artefacts")  # prose: ok
    )
    images: ImagesRead | None = None

    @classmethod
    def of(cls, artifacts: list[Verification], against: str, images: ImagesRead) -> Verifications:
        """The artifacts together: a check that failed matters most; what could not run here matters least."""
        passed = {0: True, 3: None}.get(_worst(artifacts), False)
        return cls(passed=passed, against=against, artifacts=tuple(artifacts), images=images)

    @property
    def exit_code(self) -> int:
        """0 all passed, 1 a check failed, 2 a file cannot be used, 3 something could not run here."""
        return _worst(self.artifacts)

    @property
    def failures(self) -> tuple[str, ...]:
        """A sentence or more per check that failed; with several artifacts each begins with its name."""
        if len(self.artifacts) == 1:
            return self.artifacts[0].failures
        return tuple(f"{one.model}: {failure}" for one in self.artifacts for failure in one.failures)

    def of_model(self, name: str) -> Verification | None:
        """The artifact of that file name, else the first."""
        return next((one for one in self.artifacts if one.model == name), next(iter(self.artifacts), None))

    def to_dict(self) -> dict[str, Any]:
        """As verify.json has it: a single artifact stands alone."""
        if len(self.artifacts) != 1:
            return super().to_dict()
        return self.artifacts[0].replaced(images=self.images).to_dict()


def read_verifications(path: Path, next_step: str) -> Verifications:
    """verify.json, of one artifact or of several; raises as `read_document` does."""
    if read_json(path, next_step).get("schema") == Verifications.schema_name():
        return read_document(Verifications, path, next_step)
    one = read_document(Verification, path, next_step)
    return Verifications(passed=one.passed, against=one.against, artifacts=(one,), images=one.images)


def _worst(artifacts: Iterable[Verification]) -> int:
    codes = {one.exit_code for one in artifacts}
    return next((code for code in (1, 2, 3) if code in codes), 0)
