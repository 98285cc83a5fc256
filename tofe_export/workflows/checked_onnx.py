"""Writes an ONNX model and tries it before anybody else does."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from tofe_export.artifacts.names import is_text
from tofe_export.artifacts.sets import Draft
from tofe_export.errors import CheckFailedError
from tofe_export.graph.stored import write
from tofe_export.runners.onnxruntime_runner import OnnxRuntimeRunner

_BATCHES = (1, 3)  # neither is the batch that was traced


def write_checked(model: ir.Model, draft: Draft) -> None:
    """Writes `model`, with its external data if it needs some, and lets the ONNX checker look at it.

    Raises:
        CheckFailedError: the checker refuses it.
    """
    write(model, draft.path, draft.write_data)
    try:
        # The checker takes a path in UTF-8 only.
        checked = os.fspath(draft.path) if is_text(draft.path) else draft.path.read_bytes()
        onnx.checker.check_model(checked, full_check=True)
    except onnx.checker.ValidationError as error:
        raise CheckFailedError(
            f"The ONNX checker refuses the exported graph: {error}", "Please report this model."
        ) from error


def run_two_batches(path: Path, shape: tuple[int, ...]) -> None:
    """A batch size baked in by accident shows only at another one.

    Args:
        path: the ONNX file.
        shape: of an image, (D, H, W).

    Raises:
        CheckFailedError: other shapes than asked for, or values that are not finite.
    """
    runner = OnnxRuntimeRunner(path)
    for batch in _BATCHES:
        images = np.random.default_rng(batch).standard_normal((batch, *shape), dtype=np.float32)
        for name, value in runner.run(images).items():
            if value.shape[0] != batch:
                raise CheckFailedError(
                    f"At batch {batch} the exported model returns {name} of shape {list(value.shape)}.",
                    "Please report this model.",
                )
            if not np.isfinite(value).all():
                raise CheckFailedError(
                    f"The {name} of the exported model are not finite: on {batch} images of noise they hold NaN or "
                    "infinities.",
                    "Look for values too large in the checkpoint's weights.",
                )
