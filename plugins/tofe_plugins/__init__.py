"""ToFe's two graph operators as TensorRT plugins: CUDA kernels, their compilation, their registration.

Knows tensors, not models. Nothing here needs a GPU until a kernel runs.
"""

from tofe_plugins.registration import register, registered

__all__ = ["register", "registered"]
