"""Writes an ONNX model and tries it before anybody else does."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx

from tofe_export.artifacts.names import is_text
from tofe_export.errors import CheckFailedError, InputError
from tofe_export.runners.onnxruntime_runner import OnnxRuntimeRunner

_BATCHES = (1, 3)  # neither is the batch that was traced
_LIMIT_BYTES = 2_000_000_000  # a protobuf file cannot be larger


def write_checked(proto: onnx.ModelProto, path: Path) -> None:
    """Writes `proto` and lets the ONNX checker look at it.

    Raises:
        InputError: it is too large for one file.
        CheckFailedError: the checker refuses it.
    """
    if proto.ByteSize() > _LIMIT_BYTES:
        raise InputError(
            "The model is larger than 2 GB, more than one ONNX file can hold.", "Choose a smaller backbone."
        )
    path.write_bytes(proto.SerializeToString(deterministic=True))
    try:
        onnx.checker.check_model(os.fspath(path) if is_text(path) else proto, full_check=True)
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
