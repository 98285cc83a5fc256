"""tofe-export verify"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Exit, Option

from tofe_export.bounds import MOST_IMAGES
from tofe_export.cli import console
from tofe_export.cli.options import as_options
from tofe_export.cli.parse import tolerances
from tofe_export.cli.processes import is_first
from tofe_export.progress import silent

if TYPE_CHECKING:
    from tofe_export.documents.verification import StageDrift, ThresholdComparison, Verification

_COLUMNS = ("artifact", "precision", "backend", "images", "top-1", "logits", "KL", "overlap", "verdict")
_VERDICTS = {0: "PASSED", 3: "NOT CHECKED: something could not run here"}


def verify(
    models: Annotated[list[Path], Argument(help="ONNX files, engines, programs for phones.", metavar="MODEL...")],
    against: Annotated[Path, Option(help="The checkpoint they must agree with; or hf-hub:owner/name.", metavar="CKPT")],
    data: Annotated[str | None, Option(help="Images: 'digits', 'photos' or a folder.")] = None,
    samples: Annotated[int, Option(help="At most this many images.", min=1, max=MOST_IMAGES)] = 128,
    tolerance: Annotated[
        list[str] | None,
        Option(help="A limit of your own, such as logits_max_abs=1e-3 or int8.cosine_min=0.8; repeatable."),
    ] = None,
    threshold: Annotated[
        bool, Option(help="Also say what fixed keep counts cost, against each image keeping its own number.")
    ] = True,
    provider: Annotated[Literal["cpu", "cuda"], Option(help="Where ONNX Runtime computes.")] = "cpu",
    json: Annotated[Path | None, Option(help="Write the result as JSON.", metavar="FILE")] = None,
    junit: Annotated[Path | None, Option(help="Write the result as JUnit XML.", metavar="FILE")] = None,
) -> None:
    """Compare exported models with their checkpoint, stage by stage; exit 1 when one does not agree."""
    from tofe_export.api.verify import verify as run
    from tofe_export.artifacts.file_kinds import Kind
    from tofe_export.artifacts.outputs import Output, require_outputs
    from tofe_export.data.sources import require_unambiguous
    from tofe_export.parity.junit import to_junit

    require_outputs([Output(json, Kind.VERIFY), Output(junit, Kind.JUNIT)], [*models, against])
    require_unambiguous(data)
    own_limits = tolerances(tolerance)
    first = is_first()
    with console.progress() if first else nullcontext(silent) as progress:
        result = run(
            models,
            against=against,
            data=data,
            samples=samples,
            tolerances=own_limits,
            threshold=threshold,
            provider=provider,
            shared=True,
            progress=progress,
        )
    if not first:  # of several processes one speaks
        return
    console.save_json(json, result)
    console.save_text(junit, lambda: to_junit(result))
    say = partial(as_options, names=[*models, against])
    shown: ThresholdComparison | None = None
    for one in result.artifacts:
        _show(one, say)
        if one.threshold is not None and one.threshold != shown:  # of the keep counts: the same for several artifacts
            _show_threshold(one.threshold)
            shown = one.threshold
    if len(result.artifacts) > 1:
        console.table(f"Against {result.against}", _COLUMNS, [_row(one) for one in result.artifacts])
    console.warn(*map(say, result.failures))
    if result.images is not None:
        console.show_images(result.images)
    console.say(_VERDICTS.get(result.exit_code, "FAILED"))
    if result.exit_code:
        raise Exit(result.exit_code)


def _show(one: Verification, say: Callable[[str], str]) -> None:
    """One artifact: its stages and its outputs; `say` puts options in the place of arguments."""
    if one.error is not None:
        console.warn(f"{one.model}: {say(one.error.message)}", f"Next:  {say(one.error.next_step)}")
        return
    drifts = {
        "logits, same tokens": one.logits_same_selection,
        "logits, own tokens": one.logits,
        "features, same tokens": one.features,
        "features, own tokens": one.own_features,
    }
    known = [(name, drift) for name, drift in drifts.items() if drift is not None]
    rows = [_stage(stage) for stage in one.stages]
    rows += [(name, "", "", _number(drift.max_abs), "", f"{drift.cosine_min:.6f}") for name, drift in known]
    title = f"{one.model} against {one.against}: {one.samples} images of {one.data}"
    console.table(title, ("", "overlap", "flipped", "max abs difference", "of frozen", "least cosine"), rows)
    if one.stages_of == "twin":
        console.say("The engine was built without taps (trt --taps): the stages are those of a twin, built just now.")
    console.notes(one.notes)
    for sentence in one.unjudged:
        console.say(f"Not checked: {say(sentence)}")
    if one.top1_agreement is not None and one.logits is not None:
        kl, accuracy = _number(one.logits.kl_mean), one.accuracy
        right = "" if accuracy is None else f", accuracy {accuracy.deployed:.2%} (PyTorch {accuracy.reference:.2%})"
        console.say(f"Top-1 agreement {one.top1_agreement:.2%}, KL {kl}{right}")
    for limit, value in one.overridden.items():
        console.say(f"Your own tolerance: {limit} = {value:g}")
    if not one.exported_from_this_file:
        console.warn(f"Note: {one.model} was exported from another file than {one.against}.")


def _stage(stage: StageDrift) -> tuple[str, ...]:
    flips, frozen = stage.flips, stage.of_frozen.max_abs
    flipped = "" if flips is None else str(flips.tokens)
    if flips is not None and flips.tokens:
        flipped += f", {_number(flips.margin_max)}"
    return (
        f"stage {stage.index}",
        f"{stage.selection_overlap:.4f}",
        flipped,
        _number(stage.max_abs_same_selection) if stage.finite else "not finite",
        "–" if frozen is None else _number(frozen),
        "",
    )


def _show_threshold(threshold: ThresholdComparison) -> None:
    accuracy = threshold.accuracy
    right = "" if accuracy is None else f", accuracy {accuracy.fixed:.2%} (threshold {accuracy.threshold:.2%})"
    kept = ", ".join(f"{stage.kept_mean:.1f} (fixed {stage.keep})" for stage in threshold.stages)
    console.say(
        "Fixed keep counts against the threshold path, in PyTorch: "
        f"the same class for {threshold.top1_agreement:.2%}{right}; kept on average {kept}"
    )


def _row(one: Verification) -> tuple[str, ...]:
    if one.error is not None:
        verdict = "not checked" if one.passed is None else "cannot be used"
        return (one.model, "", "", "0", "", "", "", "", verdict)
    logits, overlap = one.logits, one.least_overlap
    return (
        one.model,
        one.precision,
        one.backend,
        str(one.samples),
        "" if one.top1_agreement is None else f"{one.top1_agreement:.2%}",
        "" if logits is None else _number(logits.max_abs),
        "" if logits is None else _number(logits.kl_mean),
        "" if overlap is None else f"{overlap:.4f}",
        {True: "passed", False: "FAILED", None: "not checked"}[one.passed],
    )


def _number(value: float | None) -> str:
    """Documents have null for what is not finite."""
    return "not finite" if value is None else f"{value:.1e}"
