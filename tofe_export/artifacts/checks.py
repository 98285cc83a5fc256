"""Writes an ONNX model and tries it before anybody else does."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from tofe_export.artifacts.sets import Draft
from tofe_export.errors import CheckFailedError
from tofe_export.files.names import is_text
from tofe_export.graph.export import INPUT
from tofe_export.graph.stored import write
from tofe_export.runners.base import Array, LargeModel
from tofe_export.runners.heap import give_back_freed_memory
from tofe_export.runners.onnxruntime_runner import OnnxRuntimeRunner

_BATCHES = (1, 3)  # neither is the batch that was traced
_ROUNDING = 1e-5  # of the largest value; a tenth of the tolerance of float32
_REPORT = "Please report this model."


def write_checked(model: ir.Model, draft: Draft) -> None:
    """Writes `model`, with a file of external data if it is large, and runs the ONNX checker on it.

    Raises:
        CheckFailedError: the checker refuses it.
    """
    write(model, draft.path, draft.write_data)
    try:
        onnx.checker.check_model(_content(draft.path), full_check=True)
    except onnx.checker.ValidationError as error:
        problem = f"The ONNX checker refuses the exported graph: {error}"
        raise CheckFailedError(problem, _REPORT, code="checker-refuses") from error


def run_two_batches(model: Path | bytes | LargeModel, shape: tuple[int, int, int]) -> list[dict[str, Array]]:
    """The outputs of an ONNX model on noise of an image's shape (D, H, W), at two batch sizes.

    A size that was fixed by accident shows only at another.

    Raises:
        CheckFailedError: wrong shapes, or values that are not finite.
    """
    runner, every = OnnxRuntimeRunner(model), []
    for batch in _BATCHES:
        outputs = runner.run(_noise(batch, shape))
        for name, value in outputs.items():
            if value.shape[0] != batch:
                message = f"At batch {batch} the exported model returns {name} of shape {list(value.shape)}."
                raise CheckFailedError(message, _REPORT, code="batch-fixed", output=name)
            if not np.isfinite(value).all():
                raise CheckFailedError(
                    f"The {name} of the exported model are not finite: on {batch} images of noise they hold NaN or "
                    "infinities.",
                    "Look for values too large in the checkpoint's weights.",
                    code="outputs-not-finite",
                    output=name,
                )
        every.append(outputs)
    del runner
    give_back_freed_memory()
    return every


def ask_polygraphy(model: Path | bytes | LargeModel, shape: tuple[int, int, int], own: list[dict[str, Array]]) -> None:
    """A second opinion: the same images through Polygraphy's ONNX Runtime runner, judged by its comparator.

    Where both agree, what this program says of the file depends neither on how it opens a session nor on how it reads
    the outputs, and the file works in a tool that knows nothing about it.

    Raises:
        CheckFailedError: an output is missing, or differs from those of `run_two_batches` by more than rounding.
    """
    from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx  # noqa: PLC0415 - only an export needs it
    from polygraphy.comparator import Comparator, IterationResult, SimpleCompareFunc  # noqa: PLC0415
    from polygraphy.logger import G_LOGGER  # noqa: PLC0415

    with G_LOGGER.verbosity(G_LOGGER.CRITICAL), np.errstate(all="ignore"):  # it divides by what it compares: by 0
        runner = OnnxrtRunner(SessionFromOnnx(_content(model)), name="Polygraphy")
        results = Comparator.run([runner], data_loader=[{INPUT: _noise(batch, shape)} for batch in _BATCHES])
        for batch, other, ours in zip(_BATCHES, results["Polygraphy"], own, strict=True):
            wrong = sorted(ours.keys() ^ other.keys())
            if not wrong:
                allowed = {name: _ROUNDING * max(1.0, float(np.abs(value).max())) for name, value in ours.items()}
                judge = SimpleCompareFunc(atol=allowed, rtol=0.0, check_error_stat="max")
                wrong = [name for name, same in judge(other, IterationResult(ours)).items() if not same]
            if wrong:
                message = f"At batch {batch} the file gives another {wrong[0]} in Polygraphy's ONNX Runtime runner."
                raise CheckFailedError(message, _REPORT, code="second-opinion", output=wrong[0])
    give_back_freed_memory()


def _noise(batch: int, shape: tuple[int, int, int]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.random.default_rng(batch).standard_normal((batch, *shape), dtype=np.float32)


def _content(model: Path | bytes | LargeModel) -> str | bytes:
    """What libraries in C++ take: a path in UTF-8, else the bytes of the file."""
    if not isinstance(model, Path):
        assert isinstance(model, bytes)
        return model
    path = model
    return os.fspath(path) if is_text(path) else path.read_bytes()
