"""From a ToFe module to an ONNX graph with the two operators, and the named passes over it."""
