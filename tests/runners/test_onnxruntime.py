"""What was asked for is what computes."""

import onnx_ir as ir
import pytest

from tests.helpers import exported_tofe, refused_as
from tofe_export.errors import MissingError
from tofe_export.runners.onnxruntime_runner import CUDA, OnnxRuntimeRunner


def test_an_unknown_provider_is_a_sentence() -> None:
    with refused_as("provider-unknown"):
        OnnxRuntimeRunner(ir.to_proto(exported_tofe()).SerializeToString(), provider="gpu")


@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")  # ONNX Runtime says so too, once a process
def test_a_silent_fall_back_to_the_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU, so ONNX Runtime may well use it")
    # As where the package has CUDA and the machine lacks its libraries: the provider is listed, the session falls back.
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    content = ir.to_proto(exported_tofe()).SerializeToString()
    with refused_as("provider-not-started", MissingError, provider="cuda"):
        OnnxRuntimeRunner(content, provider=CUDA)
