"""Traces a ToFe network's fixed path, or the dense backbone, into an ONNX model (torch.onnx, dynamo)."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence

import onnx_ir as ir
import torch
from torch import Tensor, nn

from tofe_export.graph.deployable import Deployable, structure_of
from tofe_export.graph.functions import OPSET, attach_functions
from tofe_export.graph.passes import PIPELINE
from tofe_export.graph.passes.taps import hide_taps
from tofe_export.model import backbones
from tofe_export.model.blocks import explicit_attention
from tofe_export.model.tofe import ToFe
from tofe_export.runners.base import LOGITS

INPUT = "images"
_TRACE_BATCH = 2  # a batch of 1 would be taken for a constant


class _Dense(nn.Module):
    """The backbone alone, under the name it has inside ToFe."""

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        self.vit = vit
        explicit_attention(self)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return (self.vit(images),)


def export_tofe(
    model: ToFe, keep: Sequence[int], rearrange: bool, taps: bool, outputs: Sequence[str] = (LOGITS,)
) -> ir.Model:
    """The fixed path as an ONNX model with a dynamic batch and the two operators.

    Args:
        model: the network; it is not changed. The result holds its weights, not copies of them.
        keep, rearrange: see `FixedPath`; `plugin` form (tokens put back by ScatterRearrange) if true, else `elide`.
        taps: keep per-stage scores, perm and tokens as outputs.
        outputs: logits, features or both. With features and elide, tokens are put back once, at the end.

    Returns:
        An opset-20 model: images float32 [batch, 3, H, W] -> logits float32 [batch, classes], and features float32
        [batch, N, C].

    Raises:
        InputError: keep counts that do not fit the model, or features of one that discards tokens.
    """
    network = Deployable(model, keep, rearrange, outputs, taps=True)  # until a pass drops what nobody asked for
    exported = _finish(_trace(network, model, network.names))
    if not taps:
        hide_taps(exported)
    return exported


def export_dense(model: ToFe) -> ir.Model:
    """The dense backbone by itself, exported in the same way: the baseline of every speed-up."""
    return _finish(_trace(_Dense(structure_of(model.vit).eval()), model, [LOGITS]))


def _trace(module: nn.Module, model: ToFe, outputs: list[str]) -> ir.Model:
    images = backbones.zero_images(model.vit, _TRACE_BATCH)
    with torch.no_grad(), quiet_exporter():
        program = torch.onnx.export(
            module,
            (images,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=outputs,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    assert program is not None
    return program.model


def _finish(model: ir.Model) -> ir.Model:
    attach_functions(model)
    for graph_pass in PIPELINE:
        graph_pass(model)
    return model


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """The exporter prints its progress and warns about its own internals; neither helps our user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
