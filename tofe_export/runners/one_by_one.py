"""Programs for phones on this machine, which take one image at a time: for parity, not for speed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tofe_export.errors import CheckFailedError, InputError, MissingError
from tofe_export.runners.base import Array
from tofe_export.runners.quiet import native_messages_hidden

_AGAIN = "Package it again from its ONNX file."


class OneByOne:
    """Runs each image of a batch by itself. A `TimedRunner`.

    Args:
        path: the program.
        outputs: names of what it returns, in its order.
        precision: what it is in, for tables.
    """

    backend: str
    _called: str

    def __init__(self, path: Path, outputs: Sequence[str], precision: str) -> None:
        self.precision, self._path, self._outputs = precision, path, tuple(outputs)
        try:
            with native_messages_hidden():  # they tell which files of the system they looked for
                self._shape = self._load()
        except (RuntimeError, ValueError, OSError, MemoryError, ImportError) as error:
            raise InputError(
                f"{self._called} cannot load {path}. It says: {_first_line(error)}",
                _AGAIN,
                code="program-refused",
                path=path,
            ) from error

    def run(self, images: NDArray[np.float32]) -> dict[str, Array]:
        """See `Runner.run`.

        Raises:
            InputError: the images do not have the shape the program was made for.
            CheckFailedError: it fails on one, or does not return what it should.
        """
        if images.shape[1:] != self._shape:
            raise InputError(
                f"The program takes images of shape {list(self._shape)}, not {list(images.shape[1:])}.",
                "Take images of that size, and the checkpoint it came from.",
                code="images-shape",
                expected=str(list(self._shape)),
                given=list(images.shape[1:]),
            )
        try:
            rows = [self._run(image[None]) for image in images]
        except (RuntimeError, ValueError) as error:
            problem = f"The program does not run. {self._called} says: {_first_line(error)}"
            raise CheckFailedError(problem, _AGAIN, code="model-does-not-run") from error
        if any(len(row) != len(self._outputs) for row in rows):
            raise CheckFailedError(
                f"The program does not return {', '.join(self._outputs)}.", _AGAIN, code="model-does-not-run"
            )
        return {name: np.concatenate([row[place] for row in rows]) for place, name in enumerate(self._outputs)}

    def bind(self, images: NDArray[np.float32]) -> Callable[[], object]:
        """See `TimedRunner.bind`."""
        return lambda: self.run(images)

    def _load(self) -> tuple[int, ...]:
        """Opens the file; returns (D, H, W) of its input."""
        raise NotImplementedError

    def _run(self, image: Array) -> list[Array]:
        """What it returns for an image float32 [1, D, H, W], in its order."""
        raise NotImplementedError


class ExecuTorchRunner(OneByOne):
    """An ExecuTorch program (.pte), its products in XNNPACK. Raises MissingError where ExecuTorch is not installed."""

    backend = "executorch"
    _called = "ExecuTorch"

    def _load(self) -> tuple[int, ...]:
        try:
            from executorch.runtime import Runtime, Verification  # noqa: PLC0415 - an extra
        except ModuleNotFoundError as error:
            raise executorch_missing() from error
        # From the file and not from bytes, which it does not keep: the memory would be gone.
        self._program = Runtime.get().load_program(self._path, verification=Verification.InternalConsistency)
        self._method: Any = self._program.load_method("forward")
        return tuple(self._method.metadata.input_tensor_meta(0).sizes()[1:])

    def _run(self, image: Array) -> list[Array]:
        import torch  # noqa: PLC0415 - the other runner does not need it

        return [value.numpy().copy() for value in self._method.execute([torch.from_numpy(image)])]


class LiteRtRunner(OneByOne):
    """A LiteRT model (.tflite). Raises MissingError where LiteRT is not installed."""

    backend = "litert"
    _called = "LiteRT"

    def _load(self) -> tuple[int, ...]:
        try:
            from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - an extra
        except ModuleNotFoundError as error:
            raise litert_missing() from error
        # From bytes, which it keeps: the name of a file must be UTF-8.
        self._interpreter: Any = Interpreter(model_content=self._path.read_bytes())
        self._interpreter.allocate_tensors()
        self._signature: Any = self._interpreter.get_signature_runner()
        return tuple(int(side) for side in self._interpreter.get_input_details()[0]["shape"][1:])

    def _run(self, image: Array) -> list[Array]:
        [argument] = self._signature.get_input_details()
        values = self._signature(**{argument: image})
        return [values[f"output_{place}"] for place in range(len(values))]


def executorch_missing() -> MissingError:
    """What to say where its package, which converts and runs, cannot be imported."""
    return MissingError(
        "ExecuTorch is not installed.", "pip install 'tofe-export[executorch]'", code="executorch-missing"
    )


def litert_missing() -> MissingError:
    """What to say where its package or that of its converter cannot be imported."""
    return MissingError("LiteRT is not installed.", "pip install 'tofe-export[litert]'", code="litert-missing")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
