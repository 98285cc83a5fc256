"""tofe-export predict"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Option

from tofe_export.cli import console

if TYPE_CHECKING:
    from tofe_export.documents.prediction import Prediction


def predict(
    model: Annotated[Path, Argument(help="ONNX file, engine, program for phones, or checkpoint.", metavar="MODEL")],
    images: Annotated[
        list[str], Argument(help="Image files, folders of them, or quoted patterns.", metavar="IMAGE...")
    ],
    top: Annotated[int, Option(help="Classes for each image.", min=1)] = 5,
    token_map: Annotated[
        Path | None, Option(help="Draw kept, frozen and reused tokens over the images.", metavar="PNG")
    ] = None,
    json: Annotated[Path | None, Option(help="Write the result as JSON.", metavar="FILE")] = None,
    provider: Annotated[Literal["cpu", "cuda"], Option(help="Where ONNX Runtime computes.")] = "cpu",
) -> None:
    """Say which classes a model sees in images."""
    from tofe_export.api.predict import predict as classify
    from tofe_export.artifacts.file_kinds import Kind
    from tofe_export.artifacts.outputs import Output, require_not_among, require_outputs
    from tofe_export.data.named import open_named

    source, outputs = open_named(images), [Output(json, Kind.PREDICTIONS), Output(token_map, Kind.TOKEN_MAP)]
    require_not_among(outputs, source.files)
    require_outputs(outputs, [model])
    with console.progress() as progress:
        predictions = classify(model, source, top=top, token_map=token_map, provider=provider, progress=progress)
    console.save_json(json, predictions)
    if token_map is not None:
        console.say(f"Wrote {token_map}")
    rows = [row for one in predictions for row in _rows(one)]
    title = f"{predictions.model}: {predictions.backend}, {predictions.precision}"
    console.table(title, ("image", "class", "probability"), rows)
    console.show_images(predictions.images)
    console.notes(predictions.notes)
    console.assumptions(predictions.assumed)


def _rows(prediction: Prediction) -> list[tuple[str, str, str]]:
    """The image is named beside its best class only."""
    return [
        ("" if place else prediction.image, one.name or f"class {one.index}", f"{one.probability:.1%}")
        for place, one in enumerate(prediction.classes)
    ]
