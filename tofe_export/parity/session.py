"""Verifies artifacts against one checkpoint, each on the same images; several processes share these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tofe_export.artifacts.artifact import Artifact
from tofe_export.artifacts.deployed import compared_batch, open_deployed, tried_batches
from tofe_export.artifacts.ends import EndsAgreement, check_ends
from tofe_export.artifacts.opened import Opened
from tofe_export.checkpoints.checkpoint import Checkpoint, load_like
from tofe_export.checkpoints.hub import hub_name, pinned
from tofe_export.data.image_log import ImageLog
from tofe_export.data.images import ImageSource, batches
from tofe_export.data.sources import class_note, images_like_training
from tofe_export.documents.manifest import Manifest, OnnxManifest
from tofe_export.documents.verification import Check, Problem, Verification
from tofe_export.errors import InputError, MissingError, TofeError
from tofe_export.files.names import readable
from tofe_export.model.config import ToFeConfig
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.tofe import check_keep
from tofe_export.parity.batch_sizes import PREVENTING, check_batch_sizes
from tofe_export.parity.comparison import Comparison
from tofe_export.parity.divergence import check_overflow
from tofe_export.parity.provenance import check_graph, check_preprocessing, check_weights
from tofe_export.parity.side_by_side import compare
from tofe_export.parity.threshold import ThresholdDifference, against_threshold
from tofe_export.parity.tolerances import Overrides, Tolerance, tolerance_of
from tofe_export.progress import Progress, tracked
from tofe_export.runners.base import FEATURES, Runner
from tofe_export.training.processes import Processes

_COMPARISON = "comparison"
_NOT_COMPARED = Check(name=_COMPARISON, passed=None, message="Its outputs and stages were not compared with PyTorch's.")


@dataclass(frozen=True)
class _Prepared:
    """An artifact before it is compared; without a runner where it cannot be."""

    artifact: Artifact
    checkpoint: Checkpoint
    images: ImageSource
    tolerance: Tolerance
    checks: list[Check]
    runner: Runner | None = None
    backend: str = ""

    def without_comparison(self) -> Comparison:
        """What is known then, and that this is all."""
        if not any(check.name == _COMPARISON for check in self.checks):
            self.checks.append(_NOT_COMPARED)
        return Comparison(self.tolerance, other_checks=self.checks)


@dataclass
class Session:
    """What artifacts of one checkpoint share: the checkpoint, images, and the threshold path of equal keep counts."""

    against: Checkpoint | Path
    data: str | None
    samples: int
    tolerances: Overrides
    threshold: bool
    provider: str
    progress: Progress
    processes: Processes
    log: ImageLog = field(default_factory=ImageLog)
    _checkpoints: list[tuple[Checkpoint | Path, Checkpoint]] = field(default_factory=list)
    _thresholds: dict[str, ThresholdDifference] = field(default_factory=dict)

    @property
    def against_name(self) -> str:
        """The file name of the checkpoint."""
        path = self.against.path if isinstance(self.against, Checkpoint) else self.against
        if path is None:
            return ""
        return readable(path.name if isinstance(self.against, Checkpoint) or hub_name(path) is None else path)

    def verify(self, name: str, artifact: Artifact | TofeError) -> Verification:
        """One artifact; `name` tells it apart from the others. Of several processes each gets the same."""
        try:
            return self._verified(name, artifact)
        except TofeError as error:
            return _unusable(name, self.against_name, error)

    def _verified(self, name: str, artifact: Artifact | TofeError) -> Verification:
        made: list[_Prepared] = []

        def prepare() -> bool:
            if isinstance(artifact, TofeError):
                raise artifact
            made.append(self._prepared(artifact))
            return made[0].runner is not None

        ready = all(self.processes.shared(prepare))  # or none compares: they would wait for each other
        [prepared] = made
        comparison = self._compared(prepared) if ready else prepared.without_comparison()
        manifest, checkpoint = prepared.artifact.manifest, prepared.checkpoint
        fixed = self._threshold_of(prepared) if comparison.samples else None
        if fixed is not None and fixed.check is not None:
            prepared.checks.append(fixed.check)
        if comparison.samples and isinstance(manifest, OnnxManifest) and manifest.has_ends:
            prepared.checks.append(self._ends(prepared))
        return Verification(
            **dict(comparison.agreement()),
            model=name,
            model_sha256=manifest.sha256,
            against=self.against_name,
            backend=prepared.backend,
            exported_from_this_file=manifest.origin.sha256 == checkpoint.file_sha256,
            data=readable(prepared.images.name),
            precision=manifest.precision,
            keep=manifest.keep,
            gmacs=manifest.gmacs,
            dense_gmacs=manifest.dense_gmacs,
            threshold=None if fixed is None else fixed.document(),
            notes=self._notes(manifest),
        )

    def _ends(self, prepared: _Prepared) -> Check:
        def tried() -> EndsAgreement:
            return check_ends(prepared.artifact, prepared.images, self.log, self.provider)

        return Check.of("ends", list(self.processes.shared(tried)[0].failures))

    def _checkpoint(self, artifact: Artifact) -> Checkpoint:
        """The checkpoint as the network that the artifact was exported from."""
        config = ToFeConfig.of(artifact.manifest.config)
        against = self._source(artifact.manifest)
        for source, known in self._checkpoints:
            if source == against and known.model.config == config:
                return known
        checkpoint = load_like(against, config, artifact.manifest.weights)
        if config != checkpoint.model.config:
            raise InputError(
                f"{artifact.path} was exported from another network than {self.against_name} holds "
                f"({config.backbone} and {checkpoint.model.config.backbone}).",
                f"Verify against {artifact.manifest.origin.file}.",
                code="another-network",
                path=artifact.path,
            )
        self._checkpoints.append((against, checkpoint))
        return checkpoint

    def _source(self, manifest: Manifest) -> Checkpoint | Path:
        """The checkpoint that was given; of a name on the hub the revision that the manifest records."""
        return self.against if isinstance(self.against, Checkpoint) else pinned(self.against, manifest.hub)

    def _notes(self, manifest: Manifest) -> tuple[str, ...]:
        if manifest.hub is None or self._source(manifest) == self.against:
            return ()
        return (f"{self.against_name} was read at {manifest.hub.revision}, the revision that it was exported from.",)

    def _prepared(self, artifact: Artifact) -> _Prepared:
        """Everything before the comparison, which this process does by itself."""
        manifest, checkpoint = artifact.manifest, self._checkpoint(artifact)
        keep = check_keep(manifest.keep, checkpoint.model)
        images = images_like_training(checkpoint.data, self.data)
        checks = [check_preprocessing(manifest, checkpoint), check_weights(manifest, checkpoint)]
        if manifest.kind == "onnx":
            checks += check_graph(artifact.graph, keep, checkpoint.model.arriving(keep), checkpoint.model.prefix)
        tolerance = tolerance_of(manifest.precision, self.tolerances)
        prepared = _Prepared(artifact, checkpoint, images, tolerance, checks)
        if _prevents(checks):
            return prepared
        try:
            runner = open_deployed(artifact, checkpoint, self.provider, self.progress)
        except TofeError as error:
            if not Comparison(tolerance, other_checks=checks).failures:
                raise
            # Red already, and perhaps for the very reason; but that it did not run must not go unsaid.
            checks.append(Check(name=_COMPARISON, passed=None, message=f"It was not run: {error.message}"))
            return prepared
        checks += self._before_comparing(runner, checkpoint, images, manifest, tolerance)
        return replace(prepared, runner=None if _prevents(checks) else runner, backend=runner.backend)

    def _compared(self, prepared: _Prepared) -> Comparison:
        """What all processes found."""
        artifact, checkpoint, images = prepared.artifact, prepared.checkpoint, prepared.images
        manifest, tolerance, runner = artifact.manifest, prepared.tolerance, prepared.runner
        assert runner is not None
        note, size = class_note(images, checkpoint.classes), compared_batch(manifest)
        named = self.data is not None and images.classes  # the user's own, with labels
        if note and (named or "accuracy_lost" in tolerance.overridden):
            prepared.checks.append(Check(name="accuracy", passed=None, message=note))
        steps = -(-min(self.samples, len(images)) // (size * self.processes.size))

        def compared() -> Comparison:
            loop = batches(images, checkpoint.preprocessing, size, self.samples, log=self.log, part=self._part)
            return compare(
                checkpoint.model,
                runner,
                FixedPath(manifest.keep, manifest.rearrange == "plugin"),
                tracked(loop, f"Comparing {artifact.path.name} with PyTorch", steps, self.progress),
                manifest.precision,
                not note,  # other classes have other numbers
                tolerance,
            )

        comparison, *others = self.processes.shared(compared)
        for other in others:
            comparison.merge(other)
        if not comparison.samples:
            raise InputError(
                f"None of the images of {images.name} can be read.", "Look at one of them.", code="no-readable-image"
            )
        comparison.other_checks = prepared.checks
        return comparison

    def _before_comparing(
        self, runner: Runner, checkpoint: Checkpoint, images: ImageSource, manifest: Manifest, tolerance: Tolerance
    ) -> list[Check]:
        """What a few images tell: other batch sizes, and overflow in FP16."""
        sizes = tried_batches(manifest)
        first = next(batches(images, checkpoint.preprocessing, sizes[-1], limit=sizes[-1], log=self.log))
        checks = [check_batch_sizes(runner, first, sizes, tolerance.cosine_min)]
        # An engine computes in FP16 indeed: what overflows there shows in its outputs.
        checked = manifest.precision == "fp16" and manifest.kind == "onnx"
        if checked and not _prevents(checks) and isinstance(runner, Opened):
            checks.append(check_overflow(checkpoint.model, runner, first.images))
        return checks

    def _threshold_of(self, prepared: _Prepared) -> ThresholdDifference | None:
        """Of each keep counts once; None where there is no threshold, or it was not asked for."""
        checkpoint, images, manifest = prepared.checkpoint, prepared.images, prepared.artifact.manifest
        model, keep = checkpoint.model, manifest.keep
        if not self.threshold or not model.stages or not model.has_threshold:
            return None
        key = f"{list(keep)} {manifest.outputs} {model.config} {checkpoint.preprocessing.digest()}"
        if key not in self._thresholds:
            count = min(self.samples, len(images))
            labelled = not class_note(images, checkpoint.classes)

            def compared() -> ThresholdDifference:
                loop = batches(images, checkpoint.preprocessing, 1, limit=count, log=self.log, part=self._part)
                steps = -(-count // self.processes.size)
                loop = tracked(loop, "Comparing keep counts with the threshold", steps, self.progress)
                return against_threshold(model, keep, loop, labelled, FEATURES in manifest.outputs)

            found, *others = self.processes.shared(compared)
            for other in others:
                found.merge(other)
            self._thresholds[key] = found
        return self._thresholds[key]

    @property
    def _part(self) -> tuple[int, int]:
        """Which of the images are this process's."""
        return self.processes.rank, self.processes.size


def _prevents(checks: Sequence[Check]) -> bool:
    """Whether something failed that makes a comparison of outputs impossible."""
    return any(check.name in PREVENTING and check.passed is False for check in checks)


def _unusable(name: str, against: str, error: TofeError) -> Verification:
    missing = isinstance(error, MissingError)
    message = readable(error.message)
    return Verification(
        passed=None if missing else False,
        samples=0,
        top1_agreement=None,
        logits=None,
        stages=(),
        failures=() if missing else (message,),
        model=name,
        against=against,
        error=Problem(message=message, next_step=readable(error.next_step), exit_code=error.exit_code, code=error.code),
    )
