"""`tofe-export verify`: deployed models against the checkpoint they came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tofe_export.artifacts.files import sha256
from tofe_export.artifacts.manifest import read_manifest
from tofe_export.artifacts.names import distinct_names, readable
from tofe_export.artifacts.places import resolved
from tofe_export.checkpoints.checkpoint import Checkpoint, load_like
from tofe_export.data.image_log import ImageLog
from tofe_export.data.images import ImageSource, batches
from tofe_export.data.sources import class_note
from tofe_export.errors import InputError, MissingError, TofeError
from tofe_export.model.config import ToFeConfig
from tofe_export.model.tofe import check_keep
from tofe_export.runners.base import FEATURES, LOGITS, Runner
from tofe_export.runners.onnxruntime_runner import CPU, require_onnx
from tofe_export.verify.batch_sizes import PREVENTING, check_batch_sizes
from tofe_export.verify.checks import Check
from tofe_export.verify.compare import compare
from tofe_export.verify.comparison import Comparison
from tofe_export.verify.modules import check_overflow
from tofe_export.verify.opened import Opened, read_onnx
from tofe_export.verify.provenance import check_graph, check_preprocessing, check_weights
from tofe_export.verify.threshold import ThresholdDifference, against_threshold
from tofe_export.verify.tolerances import Overrides, Tolerance, require_used, tolerance_of
from tofe_export.workflows.export_onnx import parity_source
from tofe_export.workflows.open_deployed import compared_batch, open_deployed, tried_batches
from tofe_export.workflows.progress import Report, silent, tracked

SCHEMA, SCHEMA_SEVERAL = "tofe-export/verify/1", "tofe-export/verify-several/1"


@dataclass(frozen=True)
class VerifyOptions:
    """Options of `tofe-export verify`.

    Attributes:
        data: images, in the words of --data; None takes what the checkpoint was trained on, or bundled photos.
        samples: at most so many.
        tolerances: the user's own limits.
        threshold: also compare the fixed path with the threshold path.
        provider: where ONNX Runtime computes.
    """

    data: str | None = None
    samples: int = 128
    tolerances: Overrides = field(default_factory=dict)
    threshold: bool = True
    provider: str = CPU


@dataclass(frozen=True)
class VerifyResult:
    """verify.json, a document per artefact, and which images were read and left out.

    Attributes:
        document: one artefact's, or one that holds all of them under "artefacts".
        artefacts: one document each.
        exit_code: 0, 1 (a check failed), 2 (a file cannot be used) or 3 (something could not run here).
    """

    document: dict[str, Any]
    artefacts: list[dict[str, Any]]
    exit_code: int
    images: ImageLog


def verify_models(
    artefacts: Sequence[Path], source: Path, options: VerifyOptions | None = None, report: Report = silent
) -> VerifyResult:
    """Compares each of `artefacts` with the checkpoint `source`, all on the same images.

    An artefact that cannot be used does not stop the others: its document has an "error".

    Raises:
        InputError: no artefact, or options that no artefact could be compared with.
    """
    if not artefacts:
        raise InputError("No model was given.", "Type: tofe-export verify model.onnx --against ckpt.pth")
    options = options or VerifyOptions()
    require_onnx(artefacts, options.provider)
    _require_precisions(artefacts, options.tolerances)
    session = _Session(source, options, report)
    found, codes = [], []
    # One file given twice, by a pattern and by name, say, is one artefact.
    artefacts = list({resolved(artefact): artefact for artefact in artefacts}.values())
    for artefact, name in zip(artefacts, distinct_names(artefacts), strict=True):
        try:
            document = session.verify(artefact)
            codes.append(_code_of(document))
        except TofeError as error:
            document, code = _unusable(source, error), error.exit_code
            codes.append(code)
        found.append({**document, "model": name})
    # A check that failed matters most; what merely could not run here matters least.
    code = next((code for code in (1, 2, 3) if code in codes), 0)
    passed = {0: True, 3: None}.get(code, False)
    several = {"schema": SCHEMA_SEVERAL, "passed": passed, "against": readable(source.name), "artefacts": found}
    whole = {**(found[0] if len(found) == 1 else several), "images": session.log.to_dict()}
    return VerifyResult(whole, [whole] if len(found) == 1 else found, code, session.log)


def _require_precisions(artefacts: Sequence[Path], overrides: Overrides) -> None:
    """Refuses limits for a precision that no artefact is in; where a manifest cannot be read, somebody else says so."""
    if not any(precision for precision, _ in overrides):
        return
    found = set()
    for path in artefacts:
        try:
            found.add(read_manifest(path)["precision"])
        except (InputError, ValueError):  # ValueError: "." has no manifest
            return
    require_used(overrides, found)


def verify_model(
    artefact: Path, source: Path, data: str | None = None, samples: int = 128, report: Report = silent
) -> VerifyResult:
    """One artefact, with default options.

    Raises:
        MissingError: an engine that cannot run here.
        InputError: a file that is missing or of another kind, a manifest that does not belong, another network.
    """
    session = _Session(source, VerifyOptions(data, samples), report)
    document = session.verify(artefact)
    document["images"] = session.log.to_dict()
    return VerifyResult(document, [document], _code_of(document), session.log)


@dataclass
class _Session:
    """What artefacts of one checkpoint share: images, and the threshold path of equal keep counts."""

    source: Path
    options: VerifyOptions
    report: Report
    log: ImageLog = field(default_factory=ImageLog)
    _thresholds: dict[str, ThresholdDifference] = field(default_factory=dict)

    def verify(self, artefact: Path) -> dict[str, Any]:
        manifest = read_manifest(artefact)
        checkpoint = self._checkpoint(artefact, manifest)
        keep = check_keep([int(count) for count in manifest["keep"]], checkpoint.model)
        tolerance = tolerance_of(manifest["precision"], self.options.tolerances)
        images = parity_source(checkpoint, self.options.data)
        known = [check_preprocessing(manifest, checkpoint), check_weights(manifest, checkpoint)]
        if manifest["kind"] == "onnx":
            known += check_graph(read_onnx(artefact), keep, checkpoint.model.arriving(keep))
        found, backend = self._compared(artefact, manifest, checkpoint, images, tolerance, known)
        threshold = self._threshold(checkpoint, keep, images, manifest) if found.samples else None
        if threshold is not None and threshold.check is not None:
            known.append(threshold.check)
        same_file = manifest.get("checkpoint", manifest["source"])["sha256"] == sha256(self.source)
        return {
            "schema": SCHEMA,
            "model": readable(artefact.name),
            "model_sha256": manifest["sha256"],
            "against": readable(self.source.name),
            "backend": backend,
            "exported_from_this_file": same_file,
            "data": readable(images.name),
            "precision": manifest["precision"],
            "keep": list(keep),
            "gmacs": manifest["gmacs"],
            "dense_gmacs": manifest["dense_gmacs"],
            **found.to_dict(),
            "threshold": None if threshold is None else threshold.to_dict(),
        }

    def _checkpoint(self, artefact: Path, manifest: dict[str, Any]) -> Checkpoint:
        config = ToFeConfig.from_dict(manifest["config"])
        checkpoint = load_like(self.source, config)
        if config != checkpoint.model.config:
            raise InputError(
                f"{artefact} was exported from another network than {self.source} holds "
                f"({config.backbone} and {checkpoint.model.config.backbone}).",
                f"Verify against {manifest.get('source', {}).get('file', 'its own checkpoint')}.",
            )
        return checkpoint

    def _compared(
        self,
        artefact: Path,
        manifest: dict[str, Any],
        checkpoint: Checkpoint,
        images: ImageSource,
        tolerance: Tolerance,
        known: list[Check],
    ) -> tuple[Comparison, str]:
        """The comparison, and what ran the artefact; without one where it cannot run as it is."""
        found = Comparison(tolerance, other_checks=known)
        if _prevents(known):
            known.append(_NOT_COMPARED)
            return found, ""
        try:
            runner = open_deployed(artefact, manifest, checkpoint, self.options.provider, self.report)
        except TofeError as error:
            if not found.failures:
                raise
            # Red already, and perhaps for the very reason; but that it did not run must not go unsaid.
            known.append(Check(_COMPARISON, None, f"It was not run: {error.message}"))
            return found, ""
        known += self._before_comparing(runner, checkpoint, images, manifest, tolerance)
        if _prevents(known):
            known.append(_NOT_COMPARED)
            return found, runner.backend
        options, note, size = self.options, class_note(images, checkpoint.classes), compared_batch(manifest)
        named = options.data is not None and images.classes  # the user's own, with labels
        if note and (named or _ACCURACY_LOST in tolerance.overridden):
            known.append(Check(_ACCURACY, None, note))
        loop = batches(images, checkpoint.preprocessing, size, options.samples, log=self.log)
        steps = -(-min(options.samples, len(images)) // size)
        found = compare(
            checkpoint.model,
            runner,
            tuple(manifest["keep"]),
            manifest["rearrange"] == "plugin",
            tracked(loop, f"Comparing {artefact.name} with PyTorch", steps, self.report),
            manifest["precision"],
            not note,  # other classes have other numbers
            tolerance,
        )
        found.other_checks = known
        return found, runner.backend

    def _before_comparing(
        self,
        runner: Runner,
        checkpoint: Checkpoint,
        images: ImageSource,
        manifest: dict[str, Any],
        tolerance: Tolerance,
    ) -> list[Check]:
        """What a few images tell: other batch sizes, and overflow in FP16."""
        sizes = tried_batches(manifest)
        first = next(batches(images, checkpoint.preprocessing, sizes[-1], limit=sizes[-1], log=self.log))
        made = [check_batch_sizes(runner, first, sizes, tolerance.cosine_min)]
        # An engine computes in FP16 indeed: what overflows there shows in its outputs.
        checked = manifest["precision"] == "fp16" and manifest["kind"] == "onnx"
        if checked and not _prevents(made) and isinstance(runner, Opened):
            made.append(check_overflow(checkpoint.model, runner, first.images))
        return made

    def _threshold(
        self, checkpoint: Checkpoint, keep: Sequence[int], images: ImageSource, manifest: dict[str, Any]
    ) -> ThresholdDifference | None:
        """Of each keep counts once; None where there is no threshold, or it was not asked for."""
        model = checkpoint.model
        if not self.options.threshold or not model.stages or not model.has_threshold:
            return None
        outputs = manifest.get("outputs", [LOGITS])
        key = f"{list(keep)} {outputs} {model.config} {checkpoint.preprocessing.digest()}"
        if key not in self._thresholds:
            count = min(self.options.samples, len(images))
            loop = batches(images, checkpoint.preprocessing, 1, limit=count, log=self.log)
            labelled = not class_note(images, checkpoint.classes)
            tracked_loop = tracked(loop, "Comparing keep counts with the threshold", count, self.report)
            self._thresholds[key] = against_threshold(model, keep, tracked_loop, labelled, FEATURES in outputs)
        return self._thresholds[key]


_ACCURACY, _ACCURACY_LOST = "accuracy", "accuracy_lost"
_COMPARISON = "comparison"
_NOT_COMPARED = Check(_COMPARISON, None, "Its outputs and stages were not compared with PyTorch's.")


def _prevents(checks: Sequence[Check]) -> bool:
    """Whether something failed that makes a comparison of outputs impossible."""
    return any(check.name in PREVENTING and check.passed is False for check in checks)


def _code_of(document: dict[str, Any]) -> int:
    codes = {True: 0, False: 1, None: 3}
    return codes[document["passed"]]


def _unusable(source: Path, error: TofeError) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "against": readable(source.name),
        "passed": None if isinstance(error, MissingError) else False,
        "samples": 0,
        "top1_agreement": None,
        "logits": None,
        "stages": [],
        "error": {
            "message": readable(error.message),
            "next_step": readable(error.next_step),
            "exit_code": error.exit_code,
        },
        "failures": [] if isinstance(error, MissingError) else [readable(error.message)],
    }
