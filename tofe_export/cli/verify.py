"""tofe-export verify"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tofe_export.bounds import MOST_IMAGES
from tofe_export.cli import console
from tofe_export.cli.images import show_images
from tofe_export.cli.parse import provider_name

_COLUMNS = ("artefact", "precision", "backend", "images", "top-1", "logits", "KL", "overlap", "verdict")


def verify(
    models: Annotated[
        list[Path], typer.Argument(help="Exported models (.onnx) and engines (.engine).", metavar="MODEL...")
    ],
    against: Annotated[Path, typer.Option(help="The checkpoint they must agree with.", metavar="CKPT")],
    data: Annotated[str | None, typer.Option(help="Images: 'digits', 'photos' or a folder.")] = None,
    samples: Annotated[int, typer.Option(help="At most so many images.", min=1, max=MOST_IMAGES)] = 128,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(help="A limit of your own, such as logits_max_abs=1e-3 or int8.cosine_min=0.8; repeatable."),
    ] = None,
    threshold: Annotated[
        bool, typer.Option(help="Also say what fixed keep counts cost, against each image keeping its own number.")
    ] = True,
    provider: Annotated[str, typer.Option(help="Where ONNX Runtime computes: cpu or cuda.")] = "cpu",
    json: Annotated[Path | None, typer.Option(help="Write the result as JSON.", metavar="FILE")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the result as JUnit XML.", metavar="FILE")] = None,
) -> None:
    """Compare exported models with their checkpoint, stage by stage; exit 1 when one does not agree."""
    from tofe_export.artifacts.file_kinds import Kind
    from tofe_export.artifacts.outputs import Output, require_outputs
    from tofe_export.data.sources import require_unambiguous
    from tofe_export.verify.tolerances import parse_overrides
    from tofe_export.workflows.verify_model import VerifyOptions, verify_models

    require_outputs([Output(json, Kind.VERIFY), Output(junit, Kind.JUNIT)], [*models, against])
    require_unambiguous(data)
    options = VerifyOptions(data, samples, parse_overrides(tolerance or ()), threshold, provider_name(provider))
    with console.progress() as report:
        result = verify_models(models, against, options, report)
    console.save_json(json, result.document)
    console.save_text(junit, lambda: _junit(result.artefacts))
    said = None
    for document in result.artefacts:
        _show(document)
        fixed = document.get("threshold")
        if fixed is not None and fixed != said:  # of the keep counts: the same for several artefacts
            _show_threshold(fixed)
            said = fixed
    if len(result.artefacts) > 1:
        console.table(f"Against {against.name}", _COLUMNS, [_row(document) for document in result.artefacts])
    for document in result.artefacts:
        for failure in document["failures"]:
            console.warn([f"{document['model']}: {failure}" if len(result.artefacts) > 1 else failure])
    show_images(result.images)
    console.say({0: "PASSED", 3: "NOT CHECKED: something could not run here"}.get(result.exit_code, "FAILED"))
    if result.exit_code:
        raise typer.Exit(result.exit_code)


def _junit(documents: Sequence[dict[str, Any]]) -> str:
    from tofe_export.verify.junit import to_junit

    return to_junit(documents)


def _show(document: dict[str, Any]) -> None:
    """One artefact: its stages, its logits, what fixed keep counts cost."""
    if "error" in document:
        error = document["error"]
        console.warn([f"{document['model']}: {error['message']}", f"Next:  {error['next_step']}"])
        return
    rows = [_stage(stage) for stage in document["stages"]]
    same, own = document["logits_same_selection"], document["logits"]
    if same is not None:
        rows.append(("logits, same tokens", "", "", _number(same["max_abs"]), "", f"{same['cosine_min']:.6f}"))
    if own is not None:
        rows.append(("logits, own tokens", "", "", _number(own["max_abs"]), "", f"{own['cosine_min']:.6f}"))
    for key, what in (("features", "features, same tokens"), ("own_features", "features, own tokens")):
        if (found := document[key]) is not None:
            rows.append((what, "", "", _number(found["max_abs"]), "", f"{found['cosine_min']:.6f}"))
    name, against = document["model"], document["against"]
    title = f"{name} against {against}: {document['samples']} images of {document['data']}"
    console.table(title, ("", "overlap", "flipped", "max abs difference", "of frozen", "least cosine"), rows)
    if document["stages_of"] == "twin":
        console.say("The engine was built without taps (trt --taps): the stages are those of a twin, built just now.")
    for check in document["checks"]:
        if check["passed"] is None:
            console.say(f"Not checked: {check['message']}")
    if document["top1_agreement"] is not None:
        kl = _number(own["kl_mean"])
        console.say(f"Top-1 agreement {document['top1_agreement']:.2%}, KL {kl}{_accuracy(document['accuracy'])}")
    for limit, value in document["overridden"].items():
        console.say(f"Your own tolerance: {limit} = {value:g}")
    if not document["exported_from_this_file"]:
        console.warn([f"Note: {name} was exported from another file than {against}."])


def _stage(stage: dict[str, Any]) -> tuple[str, ...]:
    flips = stage["flips"]
    margin = f", {_number(flips['margin_max'])}" if flips["tokens"] else ""
    finite, frozen = stage["finite"], stage["of_frozen"]["max_abs"]
    return (
        f"stage {stage['index']}",
        f"{stage['selection_overlap']:.4f}",
        f"{flips['tokens']}{margin}",
        _number(stage["max_abs_same_selection"]) if finite else "not finite",
        "–" if frozen is None else _number(frozen),
        "",
    )


def _show_threshold(found: dict[str, Any]) -> None:
    accuracy = found["accuracy"]
    right = "" if accuracy is None else f", accuracy {accuracy['fixed']:.2%} (threshold {accuracy['threshold']:.2%})"
    console.say(
        f"Fixed keep counts against the threshold path, in PyTorch: the same class for {found['top1_agreement']:.2%}"
        f"{right}; kept on average "
        + ", ".join(f"{stage['kept_mean']:.1f} (fixed {stage['keep']})" for stage in found["stages"])
    )


def _row(document: dict[str, Any]) -> tuple[str, ...]:
    if "error" in document:
        verdict = "not checked" if document["passed"] is None else "cannot be used"
        return (document["model"], "", "", "0", "", "", "", "", verdict)
    own = document["logits"]
    overlap = min((stage["selection_overlap"] for stage in document["stages"]), default=None)
    return (
        document["model"],
        document["precision"],
        document["backend"],
        str(document["samples"]),
        "" if document["top1_agreement"] is None else f"{document['top1_agreement']:.2%}",
        "" if own is None else _number(own["max_abs"]),
        "" if own is None else _number(own["kl_mean"]),
        "" if overlap is None else f"{overlap:.4f}",
        {True: "passed", False: "FAILED", None: "not checked"}[document["passed"]],
    )


def _number(value: float | None) -> str:
    """verify writes null for what is not finite."""
    return "not finite" if value is None else f"{value:.1e}"


def _accuracy(accuracy: dict[str, float] | None) -> str:
    if accuracy is None:
        return ""
    return f", accuracy {accuracy['deployed']:.2%} (PyTorch {accuracy['reference']:.2%})"
