"""The model as Triton's Python backend runs it: ONNX Runtime on the file beside this one.

It needs onnxruntime and NumPy in the Python of Triton. Requests that Triton hands over together and that have images of
one size run as one batch; an error of one of them is answered to that one alone.
"""

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb


class TritonPythonModel:
    """What Triton looks for; see its Python backend."""

    def initialize(self, args: dict[str, str]) -> None:
        """Opens the file once, with the threads that config.pbtxt says."""
        parameters = json.loads(args["model_config"])["parameters"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(parameters["threads"]["string_value"])
        file = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(os.fspath(file), options)
        self.input = self.session.get_inputs()[0].name
        self.outputs = [output.name for output in self.session.get_outputs()]

    def execute(self, requests: list[Any]) -> list[Any]:
        """A response for each request, in their order."""
        given = [pb.get_input_tensor_by_name(request, self.input).as_numpy() for request in requests]
        alike = defaultdict(list)
        for place, array in enumerate(given):
            alike[array.shape[1:]].append(place)
        responses: list[Any] = [None] * len(requests)
        for places in alike.values():
            for place, response in zip(places, self.answers([given[place] for place in places]), strict=True):
                responses[place] = response
        return responses

    def answers(self, arrays: list[Any]) -> list[Any]:
        """Of requests with images of one size; where they fail together, each is tried by itself."""
        try:
            values = self.session.run(self.outputs, {self.input: np.concatenate(arrays)})
        except Exception as error:  # ONNX Runtime's types are private
            if len(arrays) > 1:
                return [response for array in arrays for response in self.answers([array])]
            return [pb.InferenceResponse(error=pb.TritonError(str(error)))]
        ends = np.cumsum([len(array) for array in arrays])[:-1]
        parts = zip(*(np.split(value, ends) for value in values), strict=True)
        return [pb.InferenceResponse(list(map(pb.Tensor, self.outputs, part))) for part in parts]
