"""A runtime of MLServer that serves a file for ONNX Runtime; beside `model-settings.json`, which names the file.

    pip install mlserver onnxruntime 'uvloop<0.22'   # MLServer 1.7.1 does not start its workers with a newer one
    tofe-export onnx ckpt.pth --input image --outputs classes -o examples/serving/mlserver/served.onnx
    mlserver start examples/serving/mlserver

The environment variable THREADS says how many threads the model takes.
"""

import os

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import get_model_uri
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

_UNFIT = (InvalidArgument, RuntimeException, Fail)


class ToFeRuntime(MLModel):
    """Answers requests of the V2 protocol (Open Inference Protocol), whose tensors have the names of the file."""

    async def load(self) -> bool:
        """Opens the file."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("THREADS", "0"))
        options.log_severity_level = 3
        uri = await get_model_uri(self._settings)
        self._session = onnxruntime.InferenceSession(uri, options, providers=["CPUExecutionProvider"])
        self._outputs = [value.name for value in self._session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Every output of the file; a request that does not fit it is refused with status 400."""
        try:
            feeds = {tensor.name: NumpyCodec.decode_input(tensor) for tensor in payload.inputs}
            outputs = self._session.run(None, feeds)
        except (*_UNFIT, ValueError, TypeError, OverflowError) as error:
            raise InferenceError(f"The request does not fit the model: {error}") from error
        answer = [NumpyCodec.encode_output(*pair) for pair in zip(self._outputs, outputs, strict=True)]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=answer)
