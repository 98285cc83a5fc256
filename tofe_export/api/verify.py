"""Compares deployed models with the checkpoint they came from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch

from tofe_export.api.load import AnyArtifact, Source, listed, path_of
from tofe_export.artifacts.artifact import Artifact, open_artifact, require_onnxruntime
from tofe_export.bounds import MOST_IMAGES, require_within
from tofe_export.checkpoints.checkpoint import Checkpoint
from tofe_export.documents.verification import Verifications
from tofe_export.errors import InputError, TofeError
from tofe_export.files.names import distinct_names, expanded
from tofe_export.files.places import resolved
from tofe_export.parity.session import Session
from tofe_export.parity.tolerances import Overrides, check_overrides
from tofe_export.progress import Progress, silent
from tofe_export.runners.onnxruntime_runner import CPU, require_onnx
from tofe_export.training.processes import Processes, joined


def verify(
    models: AnyArtifact | Sequence[AnyArtifact],
    *,
    against: Source,
    data: str | Path | None = None,
    samples: int = 128,
    tolerances: Overrides | None = None,
    threshold: bool = True,
    provider: str = CPU,
    shared: bool = False,
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
        shared: processes that torchrun started share the images; every one of them must call it, and each returns what
            they found together.
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
    opened = [_artifact(model) for model in unique]
    usable = [one for one in opened if isinstance(one, Artifact)]
    if len(usable) == len(opened):  # else the precision of one is not known, and its error is what matters
        require_onnxruntime(usable, provider)
        check_overrides(limits, {one.manifest.precision for one in usable})
    with joined(torch.device("cpu"), "start all of them again") if shared else nullcontext(Processes()) as processes:
        session = Session(reference, images, samples, limits, threshold, provider, progress, processes)
        verifications = [session.verify(name, one) for name, one in zip(names, opened, strict=True)]
        for log in processes.gathered(session.log):
            session.log.merge(log)
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
