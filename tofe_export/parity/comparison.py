"""What a comparison with PyTorch found, and what the limits say of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tofe_export.documents.verification import Accuracy, Agreement, Check
from tofe_export.errors import count
from tofe_export.extremes import scaled
from tofe_export.parity.divergence import ModuleDifference
from tofe_export.parity.metrics import FeaturesDifference, LogitsDifference, OutputDifference
from tofe_export.parity.stages import StageDifference
from tofe_export.parity.tokens import TokenLimits
from tofe_export.parity.tolerances import Tolerance


@dataclass
class Comparison:
    """What was found. It passed when no check failed.

    Attributes:
        tolerance: the limits.
        score_scale: scores below it count as being of this size when near-ties are judged.
        samples: images compared.
        logits, same_selection: each model on its own tokens; PyTorch on the deployed model's.
        features, own_features: the same of features; the latter only where the selection is not known.
        outputs_broken: what makes it impossible to compare its outputs, or "".
        broken: stage -> what makes it impossible to compare its tokens.
        stages_hidden: the deployed model does not show its stages.
        stages_of_twin: the stages shown are those of a twin, which may have chosen otherwise in a near-tie.
        modules: beyond the tolerance, the first one first.
        causes: stage (None: before the first) -> what went wrong there, where that can be told.
        reference: what it is compared with, in sentences.
        other_checks: of files and manifests, made elsewhere; they come first.
    """

    tolerance: Tolerance
    score_scale: float = 1.0
    samples: int = 0
    logits: LogitsDifference = field(default_factory=LogitsDifference)
    same_selection: LogitsDifference = field(default_factory=LogitsDifference)
    features: FeaturesDifference = field(default_factory=FeaturesDifference)
    own_features: FeaturesDifference = field(default_factory=FeaturesDifference)
    outputs_broken: str = ""
    stages: dict[int, StageDifference] = field(default_factory=dict)
    broken: dict[int, str] = field(default_factory=dict)
    stages_hidden: bool = False
    stages_of_twin: bool = False
    modules: list[ModuleDifference] = field(default_factory=list)
    causes: dict[int | None, str] = field(default_factory=dict)
    reference: str = "PyTorch"
    other_checks: list[Check] = field(default_factory=list)

    @property
    def checks(self) -> list[Check]:
        """Every check, the earliest cause first."""
        checks = list(self.other_checks)
        if unjudged := self.unjudged:
            why = f"Your own limits were not judged, since what they limit was not measured: {', '.join(unjudged)}."
            checks.append(Check(name="tolerances", passed=None, message=why))
        if self.stages_hidden:
            why = "The model does not show its stages, so only its outputs are compared."
            checks.append(Check(name="stages", passed=None, message=why))
        checks += [self._stage(index) for index in sorted({*self.stages, *self.broken})]
        if self.outputs_broken:
            checks.append(Check(name="outputs", passed=False, message=self.outputs_broken))
        if self.features.samples or self.own_features.samples:
            checks.append(Check.of("features", self._outputs("features", self.features, self.own_features)))
        if self.logits.samples:
            checks.append(Check.of("logits", self._outputs("logits", self.same_selection, self.logits)))
            checks.append(Check.of("classes", self._classes()))
        return checks

    @property
    def failures(self) -> list[str]:
        """One sentence or more per check that did not hold."""
        return [check.message for check in self.checks if check.passed is False]

    @property
    def unjudged(self) -> list[str]:
        """Limits of the user's own of which nothing was measured."""
        measured = {
            "accuracy_lost": self.logits.labelled,
            **dict.fromkeys(("top1_agreement", "kl_mean"), self.logits.samples),
            **dict.fromkeys(("tokens_max_abs", "tokens_relative", "selection_overlap", "score_gap"), len(self.stages)),
            "logits_max_abs": self.same_selection.samples or self.features.samples,
        }
        return [name for name in self.tolerance.overridden if not measured.get(name, 1)]

    @property
    def passed(self) -> bool | None:
        """None where a limit of the user's own could not be judged, and nothing failed."""
        return False if self.failures else None if self.unjudged else True

    @property
    def selection_known(self) -> bool:
        """Whether the deployed model itself showed which tokens it chose."""
        return bool(self.stages or self.broken) and not self.stages_of_twin

    def merge(self, other: Comparison) -> None:
        """Adds what another process found on other images; `other_checks` are those of this one."""
        self.samples += other.samples
        self.logits.merge(other.logits)
        self.same_selection.merge(other.same_selection)
        self.features.merge(other.features)
        self.own_features.merge(other.own_features)
        self.outputs_broken = self.outputs_broken or other.outputs_broken
        for index, stage in other.stages.items():
            self.stages.setdefault(index, StageDifference(index)).merge(stage)
        self.stages = dict(sorted(self.stages.items()))
        self.broken = {**other.broken, **self.broken}
        self.stages_hidden |= other.stages_hidden
        self.stages_of_twin |= other.stages_of_twin
        self.modules = self.modules or other.modules
        self.causes = {**other.causes, **self.causes}

    def limits(self, stage: StageDifference) -> TokenLimits:
        """How far a token of the stage may be from PyTorch's."""
        return TokenLimits(scaled(self.tolerance.tokens_max_abs, stage.largest), self.tolerance.tokens_relative)

    def drifted(self, stage: StageDifference) -> bool:
        """Whether its tokens are beyond the limits, on the same selection."""
        limits = self.limits(stage)
        return not (limits.hold(stage.of_kept) and limits.hold(stage.of_frozen))

    def near_tie(self, stage: StageDifference) -> float:
        """How far below a frozen token a kept one may score."""
        size = stage.largest_score if math.isfinite(stage.largest_score) else 0.0
        return self.tolerance.score_gap * max(self.score_scale, size)

    def _stage(self, index: int) -> Check:
        name = f"stage {index}"
        if index in self.broken:
            return Check(name=name, passed=False, message=self.broken[index])
        stage = self.stages[index]
        if problems := stage.not_finite(self.reference):
            return Check.of(name, problems + self._reasons(index))
        limit, tie = self.tolerance.selection_overlap, self.near_tie(stage)
        # Of few tokens a single near-tie is a large share, so one is always allowed.
        if stage.flipped > max(1.0, (1 - limit) * stage.kept) or not stage.score_gap <= tie:
            problems.append(
                f"Stage {index} selected other tokens: overlap {stage.overlap:.4f}, a kept token's score is "
                f"{stage.score_gap:.1e} below a frozen one's (allowed: {limit} and {tie:.1e}).{_flips(stage)}"
            )
        if self.drifted(stage):
            problems.append(f"On the same tokens stage {index} differs {_where(stage, self.limits(stage))}.")
        return Check.of(name, problems + self._reasons(index) if problems else [])

    def _reasons(self, index: int) -> list[str]:
        """What is known of why a stage failed: the first module, the cause, or an earlier stage."""
        earlier = [stage.index for stage in self.stages.values() if stage.index < index and self.drifted(stage)]
        if earlier:
            return [f"It follows stage {min(earlier)}, which differs already."]
        first = self.modules[0] if self.modules else None
        if first is not None and first.stage not in (index, None):
            first = next((module for module in self.modules if module.stage == index), None)
        module = [] if first is None else [_module(first)]
        return module + [self.causes[key] for key in (None, index) if key in self.causes]

    def _outputs(self, name: str, same: OutputDifference, own: OutputDifference) -> list[str]:
        """What is wrong with an output, with the reference forced onto the same selection and on its own."""
        for difference in (own, same):
            if broken := difference.not_finite.problems(name, self.reference):
                return broken + self._after_the_stages()
        limit, problems = self.tolerance, []
        allowed = scaled(limit.logits_max_abs, same.largest)
        if not same.max_abs <= allowed:
            problems.append(f"On the same tokens the {name} differ by {same.max_abs:.2e}, more than {allowed:.2e}.")
        if not self.selection_known and not own.cosine_min >= limit.cosine_min:
            problems.append(f"The least cosine of the {name} is {own.cosine_min:.4f}; the limit is {limit.cosine_min}.")
        if isinstance(own, LogitsDifference) and not own.kl_mean <= limit.kl_mean:
            problems.append(
                f"The mean KL divergence from {self.reference}'s classes is {own.kl_mean:.1e}; "
                f"{limit.kl_mean:g} is allowed."
            )
        return problems + self._after_the_stages() if problems else []

    def _after_the_stages(self) -> list[str]:
        """Where every stage agrees, what is wrong comes after them (or the model has none): the first module there."""
        if any(self.drifted(stage) for stage in self.stages.values()):
            return []
        after = next((module for module in self.modules if module.stage is None), None)
        first = after or next(iter(self.modules), None)
        module = [] if first is None else [_module(first)]
        return module + ([] if self.stages or None not in self.causes else [self.causes[None]])

    def _classes(self) -> list[str]:
        limit, logits, problems = self.tolerance, self.logits, []
        if not logits.top1_agreement >= limit.top1_agreement:
            problems.append(
                f"Only {logits.top1_agreement:.2%} of the images get the same class; "
                f"{limit.top1_agreement * 100:g}% is required."
            )
        lost = logits.right_reference - logits.right_deployed
        if lost > max(1.0, limit.accuracy_lost * logits.labelled):
            allowed = f"{limit.accuracy_lost * 100:g}% is allowed"
            problems.append(f"It loses {lost / logits.labelled:.2%} of accuracy; {allowed}.")
        return problems

    def agreement(self) -> Agreement:
        """What was measured and what the limits say of it: the measured part of verify.json."""
        accuracy, logits = None, self.logits
        if images := logits.labelled:
            accuracy = Accuracy(reference=logits.right_reference / images, deployed=logits.right_deployed / images)
        firsts = {module.stage: module.document() for module in reversed(self.modules)}
        limits = self.tolerance.values()
        return Agreement(
            passed=self.passed,
            samples=self.samples,
            top1_agreement=logits.top1_agreement if logits.samples else None,
            accuracy=accuracy,
            logits=logits.document(),
            features=self.features.document(),
            own_features=self.own_features.document(),
            logits_same_selection=self.same_selection.document(),
            stages_of=None if not self.stages else "twin" if self.stages_of_twin else "model",
            stages=tuple(stage.document(firsts.get(index)) for index, stage in self.stages.items()),
            first_module=self.modules[0].document() if self.modules else None,
            tolerances=limits,
            overridden={name: limits[name] for name in self.tolerance.overridden},
            checks=tuple(self.checks),
            failures=tuple(self.failures),
        )


def _flips(stage: StageDifference) -> str:
    if not stage.margins:
        return ""
    images = count(stage.images_flipped, "image")
    return f" {len(stage.margins)} tokens flipped in {images}, up to {max(stage.margins):.1e} from the k-th score."


def _where(stage: StageDifference, limits: TokenLimits) -> str:
    """The largest errors, of kept and of frozen tokens, of the measure that is exceeded."""
    absolute = not (stage.max_abs or 0) <= limits.absolute
    kept, frozen = (e.max_abs if absolute else e.max_relative for e in (stage.of_kept, stage.of_frozen))
    of = f"{kept:.1e}" if frozen is None else f"{kept:.1e} in kept and {frozen:.1e} in frozen tokens"
    if absolute:
        return f"by {of}, more than allowed ({limits.absolute:.1e})"
    return f"by {of} of the tokens' spread, more than allowed ({limits.relative:g})"


def _module(first: ModuleDifference) -> str:
    if first.of_reference:
        return f"The first module whose values are not finite in PyTorch itself is {first.name}."
    by = "values that are not finite" if first.max_abs is None else f"{first.max_abs:.1e}, allowed {first.allowed:.1e}"
    return f"The first module beyond the tolerance is {first.name} ({by})."
