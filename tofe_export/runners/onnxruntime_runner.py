"""ONNX Runtime on the CPU or on an NVIDIA GPU."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tofe_export.documents.machine import processors
from tofe_export.documents.onnx_options import SessionSettings
from tofe_export.errors import CheckFailedError, InputError, MissingError, brief
from tofe_export.files.names import is_text
from tofe_export.runners.base import Array, LargeModel

CPU, CUDA = "cpu", "cuda"
_PROVIDERS: dict[str, list[tuple[str, dict[str, str]]]] = {
    CPU: [("CPUExecutionProvider", {})],
    # TF32 would round float32 products to 10 bits, which no tolerance of float32 allows for.
    CUDA: [("CUDAExecutionProvider", {"use_tf32": "0"}), ("CPUExecutionProvider", {})],
}
_AGAIN = "Export it again from its checkpoint."
_ITS_OWN = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : |Exception during initialization: |Status Message: "
    r"|/\S*\.(?:h|cc|cpp|cu):\d+ (?:.*?\) )?(?=[A-Z*'\[])"
)
_ORT_TYPES = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")


def require_onnx(paths: Iterable[Path], provider: str) -> None:
    """Raises InputError where a provider is named, and none of the files would run in ONNX Runtime."""
    if provider != CPU and not any(path.suffix == ".onnx" for path in paths):
        raise InputError(
            "`provider` is for ONNX Runtime, and none of the files is an ONNX file.",
            "Omit `provider`.",
            code="provider-without-onnx",
            provider=provider,
        )


class OnnxRuntimeRunner:
    """A session on an ONNX model.

    Args:
        model: a file, or a serialized model.
        threads: intra-op threads; None means the processors this process may use.
        precision: what the model is in, for tables.
        provider: `CPU` or `CUDA`.
        prepack: copy weights into the layout that is fastest; else they are used where they lie, which saves memory
            where that is a file.
        session: parameters that were found fastest; `threads` goes before its own, of which there are no more than
            processors here.

    Raises:
        MissingError: ONNX Runtime is not installed, or has no such provider here.
        InputError: there is no such provider, or ONNX Runtime refuses the model.
    """

    def __init__(
        self,
        model: Path | bytes | LargeModel,
        threads: int | None = None,
        precision: str = "fp32",
        provider: str = CPU,
        prepack: bool = True,
        session: SessionSettings | None = None,
    ) -> None:
        self._ort = ort = import_onnxruntime()
        _require(provider)
        self.precision, self._provider = precision, provider
        self.backend = backend_of(provider)
        options = _session_options(ort, threads, session or SessionSettings())
        if not prepack:
            options.add_session_config_entry("session.disable_prepacking", "1")
        source = _source(model)
        try:
            if isinstance(source, LargeModel):
                self._weights = _give_weights(ort, source, options)
                source = source.graph
            self._session = _open(ort, source, options, _PROVIDERS[provider])
        except Exception as error:  # its exception types are private and differ between releases
            name = model if isinstance(model, Path) else "the model"
            raise InputError(
                f"ONNX Runtime cannot load {name}. It says: {_first_line(error)}",
                _AGAIN,
                code="onnxruntime-refuses",
                path=name,
            ) from error
        wanted = _PROVIDERS[provider][0][0]
        if wanted not in self._session.get_providers():  # without CUDA's libraries it goes on, on the CPU
            raise MissingError(
                f"ONNX Runtime could not start {wanted} and would compute on the CPU.",
                "See which library it misses: "
                'python -c "import onnxruntime as o; o.preload_dlls(); o.print_debug_info()"',
                code="provider-not-started",
                provider=provider,
            )
        inputs = self._session.get_inputs()
        self.outputs = [output.name for output in self._session.get_outputs()]
        if not inputs or not self.outputs:
            name = model if isinstance(model, Path) else "The model"
            raise InputError(
                f"{name} has no {'outputs' if inputs else 'inputs'}.", _AGAIN, code="no-inputs-or-outputs", path=name
            )
        self.input_name, self._shape = str(inputs[0].name), inputs[0].shape

    def run(self, images: NDArray[np.float32], others: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """See `Runner.run`; `others` are inputs besides the images, where the model has any.

        Raises:
            InputError: the images do not have the shape the model was exported for.
            CheckFailedError: ONNX Runtime fails on them.
            MissingError: not enough memory for them.
        """
        expected = self._shape
        if len(expected) != images.ndim or any(
            isinstance(want, int) and want != got for want, got in zip(expected, images.shape, strict=True)
        ):
            raise InputError(
                f"The model takes images of shape {expected}, not {list(images.shape)}.",
                "Take images of that size, and the checkpoint it came from.",
                code="images-shape",
                expected=expected,
                given=list(images.shape),
            )
        try:
            values = self._session.run(None, {self.input_name: images, **(others or {})})
        except Exception as error:  # again a private type
            if "allocate memory" not in str(error):
                raise CheckFailedError(
                    f"The model does not run on {images.shape[0]} images. ONNX Runtime says: {_first_line(error)}",
                    "If a batch size is fixed in it, export it again from its checkpoint.",
                    code="model-does-not-run",
                    batch=images.shape[0],
                ) from error
            raise MissingError(
                f"This machine has too little memory for {_described(images)}.",
                "Free some memory, or export for smaller images.",
                code="memory",
                batch=images.shape[0],
            ) from error
        return dict(zip(self.outputs, values, strict=True))

    def bind(self, images: NDArray[np.float32]) -> Callable[[], object]:
        """See `TimedRunner.bind`: on a GPU the batch and the outputs lie there, as they do for an engine."""
        if self._provider == CPU:
            return lambda: self.run(images)
        binding = self._session.io_binding()
        there = self._ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(images), self._provider, 0)
        binding.bind_ortvalue_input(self.input_name, there)
        for name in self.outputs:
            binding.bind_output(name, self._provider)

        def execute() -> None:
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return execute


def _described(values: NDArray[np.float32]) -> str:
    if values.ndim != 4:
        return f"an input of {' x '.join(map(str, values.shape))} numbers"
    return f"{values.shape[0]} images of {values.shape[2]} x {values.shape[3]} pixels"


def backend_of(provider: str) -> str:
    """The name of a runner's backend: "onnxruntime" on the CPU."""
    return "onnxruntime" if provider == CPU else f"onnxruntime-{provider}"


def _session_options(ort: Any, threads: int | None, session: SessionSettings) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or min(session.threads or processors(), processors())
    options.log_severity_level = 4  # its errors come as exceptions, which are shown as sentences
    if session.spinning is not None:
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(session.spinning)))
    # Idle workers of one session would otherwise go on spinning into the next one's measurement.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if session.arena is not None:
        options.enable_cpu_mem_arena = session.arena
    return options


def import_onnxruntime() -> Any:
    """The package, which is an extra. Raises MissingError where it is not installed."""
    try:
        import onnxruntime  # noqa: PLC0415 - an extra: its absence is an error in words, not at import
    except ImportError as error:
        raise MissingError(
            "ONNX Runtime is not installed.", "pip install 'tofe-export[cpu]'", code="onnxruntime-missing"
        ) from error
    return onnxruntime


def _require(provider: str) -> None:
    if provider not in _PROVIDERS:
        known = " or ".join(_PROVIDERS)
        raise InputError(f"`provider` is {brief(provider)}.", f"Give {known}.", code="provider-unknown")
    name = _PROVIDERS[provider][0][0]
    if name not in import_onnxruntime().get_available_providers():
        raise MissingError(
            f"This ONNX Runtime has no {name}.",
            "On a machine with an NVIDIA GPU: pip uninstall onnxruntime && pip install 'tofe-export[gpu]'",
            code="provider-missing",
            provider=provider,
        )


def _source(model: Path | bytes | LargeModel) -> str | bytes | LargeModel:
    """The model in a form that ONNX Runtime takes: a path only in UTF-8, and never that of a link, for external data is
    beside the file."""
    if not isinstance(model, Path):
        return model
    path = os.path.realpath(model)
    return path if is_text(Path(path)) else model.read_bytes()


def _open(ort: Any, source: str | bytes, options: Any, providers: list[Any]) -> Any:
    try:
        return ort.InferenceSession(source, options, providers=providers)
    except Exception as error:
        # ONNX Runtime 1.30 moves transpositions to where they would have to turn float8 values, which it cannot, and
        # makes integer products of those it finds between float8 values.
        if "float8" not in str(error):
            raise
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        return ort.InferenceSession(source, options, providers=providers, disabled_optimizers=["TransposeOptimizer"])


def _give_weights(ort: Any, model: LargeModel, options: Any) -> list[Any]:
    """Hands over weights in memory, and names the folder of those in a file.

    Returns:
        Objects that must live as long as the session, which refers to them without owning them.
    """
    import onnx_ir as ir  # noqa: PLC0415 - half of the time in which a process that times models starts

    in_files = [tensor for tensor in model.weights.values() if isinstance(tensor, ir.ExternalTensor)]
    if in_files:
        folder = os.path.realpath(in_files[0].base_dir)
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    given: dict[str, Any] = {}
    arrays = []
    for name, tensor in model.weights.items():
        if isinstance(tensor, ir.ExternalTensor):
            continue
        array = np.ascontiguousarray(tensor.numpy())
        if array.dtype.name not in _ORT_TYPES:  # types that NumPy itself does not have
            array = array.view(f"uint{8 * array.itemsize}")
        arrays.append(array)
        given[name] = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, int(tensor.dtype))
    if given:
        options.add_external_initializers(list(given), list(given.values()))
    return [arrays, given]


def _first_line(error: Exception) -> str:
    """ONNX Runtime's message, without its own codes and places in its source."""
    text = _ITS_OWN.sub("", (str(error).splitlines() or [""])[0])
    return text[:300] or type(error).__name__
