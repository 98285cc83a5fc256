"""The classes that a model sees in images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from tofe_export.api.load import AnyModel, load
from tofe_export.artifacts.artifact import Artifact, open_artifact
from tofe_export.data.image_file import read_image
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.documents.prediction import ClassScore, Prediction
from tofe_export.errors import CheckFailedError, InputError
from tofe_export.files.names import DEPLOYED, readable
from tofe_export.model.fixed_path import FixedPath
from tofe_export.progress import Progress, silent, tracked
from tofe_export.runners.base import LOGITS, Runner
from tofe_export.runners.onnxruntime_runner import CPU
from tofe_export.runners.torch_runner import TorchRunner


def predict(
    model: AnyModel,
    images: Path | str | Sequence[Path | str],
    *,
    top: int = 5,
    provider: str = CPU,
    progress: Progress = silent,
) -> tuple[Prediction, ...]:
    """The most probable classes of each image.

    Args:
        model: an ONNX file, an engine or a checkpoint, which takes its fixed path with the keep counts it knows.
        images: one or more image files; they are prepared as the model requires.
        top: how many classes per image, at least 1; fewer where the model has fewer.
        provider: where ONNX Runtime computes, "cpu" or "cuda".
        progress: called with what is being done, steps done, steps in all.

    Returns:
        One prediction per image, in their order.

    Raises:
        InputError: an image that cannot be read, a model without logits, or a file that cannot be used.
        CheckFailedError: the logits of an image are not finite.
        MissingError: a provider or an engine that cannot run here.
    """
    if top < 1:
        raise InputError(
            f"`top` is {top}, but at least one class is needed.", "Give 1 or more.", code="too-few-classes"
        )
    files = [Path(images)] if isinstance(images, (Path, str)) else [Path(image) for image in images]
    runner, preprocessing, names = _opened(model, provider)
    predictions = []
    for file in tracked(files, "Predicting", len(files), progress):
        # One at a time: every engine profile and every model takes a single image.
        outputs = runner.run(preprocessing(read_image(file)).unsqueeze(0).numpy())
        if LOGITS not in outputs:
            raise InputError(
                "This model returns features but no logits, so it names no classes.",
                "Export it with `outputs` that include logits.",
                code="no-logits",
            )
        logits = torch.tensor(outputs[LOGITS][0], dtype=torch.float64)
        if not logits.isfinite().all():
            raise CheckFailedError(
                f"The logits of {readable(file.name)} are not finite.",
                "Look at the checkpoint's weights, or use a wider precision.",
                code="logits-not-finite",
                path=file,
            )
        best = logits.softmax(dim=0).sort(descending=True, stable=True)
        ranked = zip(best.indices.tolist()[:top], best.values.tolist(), strict=False)
        classes = [
            ClassScore(index=index, name=names[index] if index < len(names) else "", probability=probability)
            for index, probability in ranked
        ]
        predictions.append(Prediction(image=readable(file.name), classes=tuple(classes)))
    return tuple(predictions)


def _opened(model: AnyModel, provider: str) -> tuple[Runner, Preprocessing, Sequence[str]]:
    """A runner, how it takes its images, and the names of its classes."""
    if isinstance(model, (str, Path)):
        path = Path(model)
        model = open_artifact(path) if path.suffix in DEPLOYED else load(path)
    if isinstance(model, Artifact):
        manifest = model.manifest
        return model.open(provider), Preprocessing.of(manifest.preprocessing), manifest.classes
    network, counts = model.model, FixedPath(model.keep_counts(), rearranged=False)
    runner = TorchRunner(lambda images: network.forward_fixed(images, counts).logits)
    return runner, model.preprocessing, model.classes
