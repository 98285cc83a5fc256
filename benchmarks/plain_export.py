"""What a user has today: a timm model through plain `torch.onnx.export`, with a dynamic batch and nothing else."""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch import nn

from tofe_export.graph.export import quiet_exporter
from tofe_export.model.backbones import zero_images


def export_plain(network: nn.Module, backbone: nn.Module) -> ir.Model:
    """`network` takes the images of `backbone`, and gives logits."""
    with torch.no_grad(), quiet_exporter():
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
