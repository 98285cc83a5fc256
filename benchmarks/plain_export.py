"""What a user has today: a timm model through plain `torch.onnx.export`, with a dynamic batch and nothing else."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings

import onnx_ir as ir
import torch
from torch import nn

from tofe_export.model.backbones import zero_images


def export_plain(network: nn.Module, backbone: nn.Module) -> ir.Model:
    """`network` takes the images of `backbone`, and gives logits."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network.eval(),
            (zero_images(backbone, 2),),
            dynamo=True,
            opset_version=20,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    assert program is not None
    return program.model
