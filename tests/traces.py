"""Traces that were made before: many tests export the same small networks, and a trace takes a second."""

from __future__ import annotations

import functools
import gc
import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

from tofe_export.graph import export
from tofe_export.model.tofe import ToFe

Trace = Callable[[nn.Module, ToFe, list[str]], ir.Model]
_MOST = 1 << 23  # bytes of weights; larger networks are traced each time


FOLDER = "TOFE_TEST_TRACES"
"""The variable of the environment that names the folder of traces to processes that are started."""


def export_faster(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Some hundred exports of this process in less time, with the same result."""
    read_operators_once(patch)
    patch.setattr(export, "_trace", remembering(export._trace, folder))
    gc.set_threshold(100_000, 50, 100)  # a trace makes many objects that live until its end


def read_operators_once(patch: pytest.MonkeyPatch) -> None:
    """torch.onnx.export reads the signatures of 600 operators again at each call. Nobody here registers others."""
    made = functools.cache(ONNXRegistry.from_torchlib)
    patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(lambda opset_version=18: made(opset_version)))


def remembering(trace: Trace, folder: Path) -> Trace:
    """`trace`, which looks in `folder` first; workers share it.

    What a trace depends on is its key: the modules, their settings, every weight and the names of the outputs. A test
    that changes code must call `trace.fresh`, which this function has for it.
    """

    def remembered(module: nn.Module, model: ToFe, outputs: list[str]) -> ir.Model:
        weights = [*module.named_parameters(), *module.named_buffers()]
        if sum(value.nbytes for _, value in weights) > _MOST or any(value.is_meta for _, value in weights):
            return trace(module, model, outputs)
        file = folder / f"{_key(module, model, outputs)}.onnx"
        if file.exists():
            return ir.from_proto(onnx.load_from_string(file.read_bytes()))
        traced = trace(module, model, outputs)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as part:
            part.write(ir.to_proto(traced).SerializeToString())
        Path(part.name).replace(file)
        return traced

    remembered.fresh = trace  # type: ignore[attr-defined]
    return remembered


def _key(module: nn.Module, model: ToFe, outputs: list[str]) -> str:
    plain = {name: value for name, value in vars(module).items() if not name.startswith("_") and name != "training"}
    config = model.config  # of a dense backbone, what selects tokens is no part
    made_of = [config] if hasattr(module, "tofe") else [config.backbone, config.backbone_args]
    digest = hashlib.sha256(f"{type(module).__name__} {plain} {outputs} {module!r} {made_of}".encode())
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        content = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(f"{name} {value.dtype} {list(value.shape)} ".encode() + content.tobytes())
    return digest.hexdigest()[:32]
