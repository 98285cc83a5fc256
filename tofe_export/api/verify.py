"""Compares deployed models with the checkpoint they came from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tofe_export.api.load import AnyArtifact, Source, listed, path_of
from tofe_export.artifacts.artifact import Artifact, open_artifact, require_onnxruntime
from tofe_export.artifacts.deployed import compared_batch, open_deployed, tried_batches
from tofe_export.artifacts.opened import Opened
from tofe_export.bounds import MOST_IMAGES, require_within
from tofe_export.checkpoints.checkpoint import Checkpoint, load_like
from tofe_export.checkpoints.hub import hub_name, pinned
from tofe_export.data.image_log import ImageLog
from tofe_export.data.images import ImageSource, batches
from tofe_export.data.sources import class_note, images_like_training
from tofe_export.documents.manifest import Manifest
from tofe_export.documents.verification import Check, Problem, Verification, Verifications
from tofe_export.errors import InputError, MissingError, TofeError
from tofe_export.files.names import distinct_names, expanded, readable
from tofe_export.files.places import resolved
from tofe_export.model.config import ToFeConfig
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.tofe import check_keep
from tofe_export.parity.batch_sizes import PREVENTING, check_batch_sizes
from tofe_export.parity.comparison import Comparison
from tofe_export.parity.divergence import check_overflow
from tofe_export.parity.provenance import check_graph, check_preprocessing, check_weights
from tofe_export.parity.side_by_side import compare
from tofe_export.parity.threshold import ThresholdDifference, against_threshold
from tofe_export.parity.tolerances import Overrides, Tolerance, check_overrides, tolerance_of
from tofe_export.progress import Progress, silent, tracked
from tofe_export.runners.base import FEATURES, Runner
from tofe_export.runners.onnxruntime_runner import CPU, require_onnx


def verify(
    models: AnyArtifact | Sequence[AnyArtifact],
    *,
    against: Source,
    data: str | Path | None = None,
    samples: int = 128,
    tolerances: Overrides | None = None,
    threshold: bool = True,
    provider: str = CPU,
    progress: Progress = silent,
) -> Verifications:
    """Compares each model with its checkpoint, stage by stage, all on the same images.

    A model that cannot be used does not stop the others: its verification has an `error`.

    Args:
        models: one or more exported ONNX files or engines.
        against: the checkpoint they must agree with, from `load`, or its file, or the folder of its training run. A
            name on the Hugging Face hub without a revision means the revision that each model was exported from.
        data: images: "digits", "photos" or a folder; None takes what the checkpoint was trained on, or bundled photos.
        samples: at most this many images.
        tolerances: limits of your own: {"logits_max_abs": 1e-3, "int8.kl_mean": 0.2}.
        threshold: also compare the fixed path with the threshold path, in PyTorch.
        provider: where ONNX Runtime computes, "cpu" or "cuda".
        progress: called with what is being done, steps done, steps in all.

    Returns:
        One verification per model; `passed` is None where something could not run here.

    Raises:
        InputError: no model, no image, or arguments that no model could be compared with.
    """
    given = listed(models)
    require_within("samples", samples, 1, MOST_IMAGES)  # no image would pass for agreement
    require_onnx(map(path_of, given), provider)
    limits = tolerances or {}
    check_overrides(limits)
    # One file given twice, by a pattern and by name, say, is one artifact.
    unique = list({resolved(path_of(model)): model for model in given}.values())
    names = distinct_names([path_of(model) for model in unique])
    images = None if data is None else str(data)
    reference = against if isinstance(against, Checkpoint) else expanded(os.fspath(against))
    session = _Session(reference, images, samples, limits, threshold, provider, progress)
    opened = [_artifact(model) for model in unique]
    usable = [one for one in opened if isinstance(one, Artifact)]
    if len(usable) == len(opened):  # else the precision of one is not known, and its error is what matters
        require_onnxruntime(usable, provider)
        check_overrides(limits, {one.manifest.precision for one in usable})
    verifications = [session.verify(name, one) for name, one in zip(names, opened, strict=True)]
    return Verifications.of(verifications, session.against_name, session.log.document())


def _artifact(model: Artifact | Checkpoint | Path) -> Artifact | TofeError:
    if isinstance(model, Checkpoint):
        problem = "A checkpoint was given where a deployed model is needed."
        return InputError(problem, "Export it first.", code="not-onnx")
    try:
        return open_artifact(model)
    except TofeError as error:
        return error
    except ValueError:  # "." has no manifest
        return InputError(f"{model} is a folder, not a file.", "Name a file.", code="folder", path=model)


@dataclass
class _Session:
    """What artifacts of one checkpoint share: the checkpoint, images, and the threshold path of equal keep counts."""

    against: Checkpoint | Path
    data: str | None
    samples: int
    tolerances: Overrides
    threshold: bool
    provider: str
    progress: Progress
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
        """One artifact; `name` tells it apart from the others."""
        try:
            if isinstance(artifact, TofeError):
                raise artifact
            return self._verified(name, artifact)
        except TofeError as error:
            return _unusable(name, self.against_name, error)

    def _verified(self, name: str, artifact: Artifact) -> Verification:
        manifest = artifact.manifest
        checkpoint = self._checkpoint(artifact)
        keep = check_keep(manifest.keep, checkpoint.model)
        images = images_like_training(checkpoint.data, self.data)
        checks = [check_preprocessing(manifest, checkpoint), check_weights(manifest, checkpoint)]
        if manifest.kind == "onnx":
            checks += check_graph(artifact.graph, keep, checkpoint.model.arriving(keep), checkpoint.model.prefix)
        comparison, backend = self._compared(artifact, checkpoint, images, checks)
        fixed = self._threshold_of(checkpoint, keep, images, manifest) if comparison.samples else None
        if fixed is not None and fixed.check is not None:
            checks.append(fixed.check)
        return Verification(
            **dict(comparison.agreement()),
            model=name,
            model_sha256=manifest.sha256,
            against=self.against_name,
            backend=backend,
            exported_from_this_file=manifest.origin.sha256 == checkpoint.file_sha256,
            data=readable(images.name),
            precision=manifest.precision,
            keep=keep,
            gmacs=manifest.gmacs,
            dense_gmacs=manifest.dense_gmacs,
            threshold=None if fixed is None else fixed.document(),
            notes=self._notes(manifest),
        )

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

    def _compared(
        self, artifact: Artifact, checkpoint: Checkpoint, images: ImageSource, checks: list[Check]
    ) -> tuple[Comparison, str]:
        """The comparison, and what ran the artifact; without one where it cannot run as it is."""
        manifest = artifact.manifest
        tolerance = tolerance_of(manifest.precision, self.tolerances)
        comparison = Comparison(tolerance, other_checks=checks)
        if _prevents(checks):
            checks.append(_NOT_COMPARED)
            return comparison, ""
        try:
            runner = open_deployed(artifact, checkpoint, self.provider, self.progress)
        except TofeError as error:
            if not comparison.failures:
                raise
            # Red already, and perhaps for the very reason; but that it did not run must not go unsaid.
            checks.append(Check(name=_COMPARISON, passed=None, message=f"It was not run: {error.message}"))
            return comparison, ""
        checks += self._before_comparing(runner, checkpoint, images, manifest, tolerance)
        if _prevents(checks):
            checks.append(_NOT_COMPARED)
            return comparison, runner.backend
        note, size = class_note(images, checkpoint.classes), compared_batch(manifest)
        named = self.data is not None and images.classes  # the user's own, with labels
        if note and (named or "accuracy_lost" in tolerance.overridden):
            checks.append(Check(name="accuracy", passed=None, message=note))
        loop = batches(images, checkpoint.preprocessing, size, self.samples, log=self.log)
        steps = -(-min(self.samples, len(images)) // size)
        comparison = compare(
            checkpoint.model,
            runner,
            FixedPath(manifest.keep, manifest.rearrange == "plugin"),
            tracked(loop, f"Comparing {artifact.path.name} with PyTorch", steps, self.progress),
            manifest.precision,
            not note,  # other classes have other numbers
            tolerance,
        )
        comparison.other_checks = checks
        return comparison, runner.backend

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

    def _threshold_of(
        self, checkpoint: Checkpoint, keep: Sequence[int], images: ImageSource, manifest: Manifest
    ) -> ThresholdDifference | None:
        """Of each keep counts once; None where there is no threshold, or it was not asked for."""
        model = checkpoint.model
        if not self.threshold or not model.stages or not model.has_threshold:
            return None
        key = f"{list(keep)} {manifest.outputs} {model.config} {checkpoint.preprocessing.digest()}"
        if key not in self._thresholds:
            count = min(self.samples, len(images))
            loop = batches(images, checkpoint.preprocessing, 1, limit=count, log=self.log)
            labelled = not class_note(images, checkpoint.classes)
            tracked_loop = tracked(loop, "Comparing keep counts with the threshold", count, self.progress)
            self._thresholds[key] = against_threshold(model, keep, tracked_loop, labelled, FEATURES in manifest.outputs)
        return self._thresholds[key]


_COMPARISON = "comparison"
_NOT_COMPARED = Check(name=_COMPARISON, passed=None, message="Its outputs and stages were not compared with PyTorch's.")


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
