"""To an ExecuTorch program (.pte) whose products run in XNNPACK (ExecuTorch documentation, XNNPACK Backend)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.export import ExportedProgram

from tofe_export.edge.tracing import example, quiet
from tofe_export.graph.deployable import Deployable
from tofe_export.runners.one_by_one import executorch_missing


def to_executorch(network: Deployable, int8: bool) -> bytes:
    """A program for one image.

    Args:
        network: what it computes.
        int8: weights of linear layers and of the patch embedding in 8 bits, one scale per output channel; what they are
            multiplied with, the image too, is quantized as it comes. That needs no calibration.

    Raises:
        MissingError: ExecuTorch is not installed.
    """
    with quiet(), torch.no_grad():
        try:
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner  # noqa: PLC0415
            from executorch.exir import to_edge_transform_and_lower  # noqa: PLC0415
            from executorch.exir.passes.constant_prop_pass import constant_prop_pass  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise executorch_missing() from error
        program = _with_constant_weights(torch.export.export(network, example(network)), constant_prop_pass)
        if int8:
            program = _quantized(program, network)
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        return bytes(lowered.to_executorch().buffer)


def _with_constant_weights(
    program: ExportedProgram, fold: Callable[[ExportedProgram], ExportedProgram]
) -> ExportedProgram:
    """Slices of a weight become weights, without which a linear layer is not taken for one by XNNPACK.

    ExecuTorch 1.5 stores the memory behind a view from its beginning, whatever part of it the view shows.
    """
    folded = fold(program)
    for name, value in folded.constants.items():
        if isinstance(value, torch.Tensor):
            folded.constants[name] = value.detach().clone(memory_format=torch.contiguous_format)
    return folded


def _quantized(program: ExportedProgram, network: Deployable) -> ExportedProgram:
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer  # noqa: PLC0415 - comes with ExecuTorch
    from torchao.quantization.pt2e import quantize_pt2e  # noqa: PLC0415

    config = xnnpack_quantizer.get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
    prepared = quantize_pt2e.prepare_pt2e(program.module(), xnnpack_quantizer.XNNPACKQuantizer().set_global(config))
    prepared(*example(network))
    return torch.export.export(quantize_pt2e.convert_pt2e(prepared), example(network))
