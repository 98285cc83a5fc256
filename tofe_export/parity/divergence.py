"""Which PyTorch module leaves the tolerance first: every module's output, in PyTorch and in the deployed graph."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tofe_export.artifacts.opened import Opened
from tofe_export.documents.verification import Check, DivergingModule
from tofe_export.extremes import scaled
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.tofe import ToFe
from tofe_export.parity.metrics import finite


@dataclass(frozen=True)
class ModuleDifference:
    """A module whose output is beyond the tolerance.

    Attributes:
        name: in PyTorch, such as `vit.blocks.3.mlp.fc1`.
        max_abs: largest difference; None where values are not finite.
        allowed: what it may be.
        stage: the stage it belongs to; None before the first and after the last.
        of_reference: the values that are not finite are PyTorch's own.
    """

    name: str
    max_abs: float | None
    allowed: float
    stage: int | None
    of_reference: bool = False

    def document(self) -> DivergingModule:
        """`first_module` in verify.json."""
        return DivergingModule(name=self.name, max_abs=self.max_abs, allowed=finite(self.allowed))


def diverging_modules(
    model: ToFe, runner: Opened, images: Tensor, path: FixedPath, limit: float
) -> list[ModuleDifference]:
    """The modules beyond `limit`, in the order the deployed graph computes them.

    PyTorch is forced onto the deployed model's selection, so that a module is blamed for its numbers only. Compared
    are modules that PyTorch calls once and that one value of the same shape leaves in the graph.

    Args:
        model, runner: the reference and the deployed model.
        images: float32 [B, D, H, W].
        path: as the model was exported, with the selection of the deployed model.
        limit: largest difference allowed; beyond 1, relative to the module's largest value.
    """
    with torch.inference_mode(), _recorded(model, runner.module_names) as reference:
        logits = model.forward_fixed(images, path).logits
    # LV-ViT adds the maximum over tokens to its head's output, outside any module: nodes there bear the head's name.
    reference = {n: v for n, v in reference.items() if v.shape != logits.shape or v.data_ptr() == logits.data_ptr()}
    differences = []
    for name, deployed in runner.run_modules(images.numpy()).items():
        if name not in reference or reference[name].shape != deployed.shape:
            continue
        expected = reference[name].float().contiguous().numpy()
        allowed = scaled(limit, float(np.abs(expected).max(initial=0.0)))
        with np.errstate(all="ignore"):
            worst = float(np.abs(expected - deployed.astype(np.float32)).max(initial=0.0))
        if not worst <= allowed:  # NaN is not
            stage, own = stage_of_module(name, model), not np.isfinite(expected).all()
            differences.append(ModuleDifference(name, finite(worst), allowed, stage, of_reference=own))
    return differences


def check_overflow(model: ToFe, runner: Opened, images: Tensor) -> Check:
    """Whether every module's output is finite in the deployed precision.

    ONNX Runtime's CPU kernels compute FP16 in float32 and leave out roundings between nodes, so a value that overflows
    on a GPU may pass there unseen. Shown as an output it is rounded. `model`, the reference, tells the stage.
    """
    for name, values in runner.run_modules(images.numpy()).items():
        if not np.isfinite(values.astype(np.float32)).all():
            stage = stage_of_module(name, model)
            where = "" if stage is None else f" (stage {stage})"
            what = f"{name}{where} gives values that are not finite; float16 ends at 65504."
            return Check.of("overflow", [f"{what} Keep it in float32, or use BF16."])
    return Check(name="overflow", passed=True)


def stage_of_module(name: str, model: ToFe) -> int | None:
    """The stage a module belongs to; None for what comes before the first stage or after the last block."""
    if match := re.match(r"stages\.(\d+)\b", name):
        return int(match[1])
    if match := re.match(r"vit\.blocks\.(\d+)\b", name):
        block = int(match[1])
        return next((index for index, blocks in enumerate(model.stage_blocks) if block in blocks), None)
    return None


@contextlib.contextmanager
def _recorded(model: nn.Module, in_graph: set[str]) -> Iterator[dict[str, Tensor]]:
    """Fills the dictionary it yields with each module's output while the model runs.

    A module without a node in the graph was folded into the weights before it (LV-ViT's residual scales), so what it
    reads does not exist there and is left out. So are modules that are called twice.
    """
    outputs: dict[str, Tensor] = {}
    calls: Counter[str] = Counter()
    folded: list[Tensor] = []  # held, so that no later tensor takes their place in memory

    def record(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        calls[name] += 1
        if not isinstance(output, Tensor):
            return
        outputs[name] = output
        before = inputs[0] if inputs and name not in in_graph else None
        # An identity, or dropout in evaluation, hands on what it got, so nothing was folded.
        if isinstance(before, Tensor) and before.data_ptr() != output.data_ptr():
            folded.append(before)

    with contextlib.ExitStack() as hooks:
        for name, module in model.named_modules():
            if name:
                hooks.enter_context(module.register_forward_hook(partial(record, name)))
        yield outputs
    # With the shape, since a head that is not in the graph reads some rows of what the last norm gives, which is.
    places = {(tensor.data_ptr(), tensor.shape) for tensor in folded}
    for name in [n for n, value in outputs.items() if calls[n] > 1 or (value.data_ptr(), value.shape) in places]:
        del outputs[name]
