"""tofe-export verify"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tofe_export.cli import console


def verify(
    model: Annotated[Path, typer.Argument(help="Exported model (.onnx) or engine (.engine).", metavar="MODEL")],
    against: Annotated[Path, typer.Option(help="The checkpoint it must agree with.", metavar="CKPT")],
    data: Annotated[str | None, typer.Option(help="Images: 'digits', 'photos' or a folder.")] = None,
    samples: Annotated[int, typer.Option(help="At most so many images.", min=1)] = 128,
    json: Annotated[Path | None, typer.Option(help="Write the result as JSON.", metavar="FILE")] = None,
) -> None:
    """Compare an exported model with its checkpoint, stage by stage; exit 1 when it does not agree."""
    from tofe_export.workflows.verify_model import verify_model

    with console.progress() as report:
        result = verify_model(model, against, data, samples, report)
    console.warn(result.skipped)
    document = result.document
    rows = [
        (f"stage {stage['index']}", f"{stage['selection_overlap']:.4f}", _number(stage["max_abs_same_selection"]), "")
        for stage in document["stages"]
    ]
    same = document["logits_same_selection"]
    if same is not None:
        rows.append(("logits, same tokens", "", _number(same["max_abs"]), f"{same['cosine_min']:.6f}"))
    own, features = document["logits"], document["features"]
    if own is not None:
        rows.append(("logits, own tokens", "", _number(own["max_abs"]), f"{own['cosine_min']:.6f}"))
    if features is not None:
        rows.append(("features, same tokens", "", _number(features["max_abs"]), ""))
    title = f"{model.name} against {against.name}: {document['samples']} images of {document['data']}"
    console.table(title, ("", "selection overlap", "max abs difference", "least cosine"), rows)
    if not document["stages"] and model.suffix == ".engine":
        console.say("No stage is in view (an engine shows them when built with --taps): only the logits are compared.")
    if document["top1_agreement"] is not None:
        console.say(f"Top-1 agreement {document['top1_agreement']:.2%}{_accuracy(document['accuracy'])}")
    if not document["exported_from_this_file"]:
        console.warn([f"Note: {model.name} was exported from another file than {against}."])
    console.save_json(json, document)
    for failure in document["failures"]:
        console.warn([failure])
    console.say("PASSED" if document["passed"] else "FAILED")
    if not document["passed"]:
        raise typer.Exit(1)


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.1e}"


def _accuracy(accuracy: dict[str, float] | None) -> str:
    if accuracy is None:
        return ""
    return f", accuracy {accuracy['deployed']:.2%} (PyTorch {accuracy['reference']:.2%})"
