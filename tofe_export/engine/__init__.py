"""TensorRT and TensorRT-RTX engines: one code for both, the module is a parameter."""
