"""To a LiteRT model (.tflite, the former TensorFlow Lite) by litert-torch."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from tofe_export.edge.tracing import example, quiet
from tofe_export.graph.deployable import Deployable
from tofe_export.runners.one_by_one import litert_missing

_BITS = 8


def to_litert(network: Deployable, int8: bool) -> bytes:
    """A model for one image, with the signature `serving_default`: `args_0` to `output_0`, `output_1` and so on.

    Args:
        network: what it computes.
        int8: weights of linear layers in 8 bits, one scale per output channel; what they are multiplied with is
            quantized as it comes. That needs no calibration.

    Raises:
        MissingError: LiteRT is not installed.
    """
    with quiet(), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        try:
            import litert_torch  # noqa: PLC0415 - an extra: its absence is an error in words, not at import
        except ModuleNotFoundError as error:
            raise litert_missing() from error
        path = Path(folder, "model.tflite")
        litert_torch.convert(network, example(network)).export(str(path))
        return _quantized(path) if int8 else path.read_bytes()


def _quantized(path: Path) -> bytes:
    """Linear layers alone: LiteRT 2.3 refuses products of two inputs of which one is in 8 bits."""
    from ai_edge_quantizer import qtyping, quantizer, recipe_manager  # noqa: PLC0415 - comes with litert-torch

    recipe = recipe_manager.RecipeManager()
    linear = qtyping.TFLOperationName.FULLY_CONNECTED
    recipe.add_dynamic_config(regex=".*", operation_name=linear, num_bits=_BITS)
    made = quantizer.Quantizer(str(path), recipe.get_quantization_recipe()).quantize()
    return bytes(made.quantized_model)
