"""Which PyTorch module leaves the tolerance first: every module's output, in PyTorch and in the deployed graph."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from polygraphy.comparator import IterationResult, SimpleCompareFunc
from polygraphy.logger import G_LOGGER
from torch import Tensor, nn

from tofe_export.extremes import scaled
from tofe_export.model.tofe import ToFe
from tofe_export.verify.checks import Check
from tofe_export.verify.metrics import finite
from tofe_export.verify.opened import Opened


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

    def to_dict(self) -> dict[str, Any]:
        """`first_module` in verify.json."""
        return {"name": self.name, "max_abs": self.max_abs, "allowed": finite(self.allowed)}


def diverging_modules(
    model: ToFe,
    runner: Opened,
    images: Tensor,
    keep: Sequence[int],
    rearranged: bool,
    chosen: Mapping[int, Tensor],
    features: bool,
    limit: float,
) -> list[ModuleDifference]:
    """The modules beyond `limit`, in the order the deployed graph computes them.

    PyTorch is forced onto the deployed model's selection, so that a module is blamed for its numbers only. Compared
    are modules that PyTorch calls once and that one value of the same shape leaves in the graph.

    Args:
        model: the reference.
        runner: the deployed model.
        images: float32 [B, 3, H, W].
        keep, rearranged, features: as in `ToFe.forward_fixed`.
        chosen: stage -> perm that the deployed model chose.
        limit: largest difference allowed; beyond 1, relative to the module's largest value.
    """
    with torch.inference_mode(), _recorded(model, runner.module_names) as ours:
        logits = model.forward_fixed(images, keep, rearranged, chosen, features=features).logits
    # LV-ViT adds the maximum over tokens to what its head says, outside any module: nodes there bear the head's name.
    ours = {n: v for n, v in ours.items() if v.shape != logits.shape or v.data_ptr() == logits.data_ptr()}
    theirs = runner.run_modules(images.numpy())
    pairs = {
        name: (ours[name].float().contiguous().numpy(), np.ascontiguousarray(value, dtype=np.float32))
        for name, value in theirs.items()
        if name in ours and ours[name].shape == value.shape
    }
    allowed = {name: scaled(limit, float(np.abs(mine).max(initial=0.0))) for name, (mine, _) in pairs.items()}
    broken = {name for name, (mine, _) in pairs.items() if not np.isfinite(mine).all()}
    worst = _compare({name: pair for name, pair in pairs.items() if name not in broken}, allowed)
    return [
        ModuleDifference(
            name,
            worst[name] if math.isfinite(worst.get(name, math.inf)) else None,
            allowed[name],
            stage_of_module(name, model),
            name in broken,
        )
        for name in pairs
        if name in broken or name in worst
    ]


def check_overflow(model: ToFe, runner: Opened, images: Tensor) -> Check:
    """Whether every module's output is finite in the deployed precision.

    ONNX Runtime's CPU kernels compute FP16 in float32 and leave out roundings between nodes, so a value that overflows
    on a GPU may pass there unseen. Shown as an output it is rounded.

    Args:
        model: the reference, for the stage's number.
        runner: the deployed model.
        images: float32 [B, 3, H, W].
    """
    for name, values in runner.run_modules(images.numpy()).items():
        if not np.isfinite(values.astype(np.float32)).all():
            stage = stage_of_module(name, model)
            where = "" if stage is None else f" (stage {stage})"
            what = f"{name}{where} gives values that are not finite; float16 ends at 65504."
            return Check("overflow", False, f"{what} Keep it in float32, or use BF16.")
    return Check("overflow", True)


def stage_of_module(name: str, model: ToFe) -> int | None:
    """The stage a module belongs to; None for what comes before the first stage or after the last block."""
    if match := re.match(r"stages\.(\d+)\b", name):
        return int(match[1])
    if match := re.match(r"vit\.blocks\.(\d+)\b", name):
        block = int(match[1])
        return next((index for index, blocks in enumerate(model.stage_blocks) if block in blocks), None)
    return None


def _compare(
    pairs: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]], allowed: Mapping[str, float]
) -> dict[str, float]:
    """Name -> largest difference, of those beyond what is allowed; the comparison itself is Polygraphy's."""
    if not pairs:
        return {}
    judge = SimpleCompareFunc(atol=dict(allowed), rtol=0.0, check_error_stat="max")
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL), np.errstate(all="ignore"):
        results = judge(
            IterationResult({name: mine for name, (mine, _) in pairs.items()}, runner_name="PyTorch"),
            IterationResult({name: other for name, (_, other) in pairs.items()}, runner_name="deployed"),
        )
    return {name: result.max_absdiff for name, result in results.items() if not result}


@contextmanager
def _recorded(model: nn.Module, in_graph: set[str]) -> Iterator[dict[str, Tensor]]:
    """Fills the dictionary it yields with each module's output while the model runs.

    A module without a node in the graph was folded into the weights before it (LV-ViT's residual scales), so what it
    reads does not exist there and is left out. So are modules that are called twice.
    """
    found: dict[str, Tensor] = {}
    calls: dict[str, int] = {}
    folded: list[Tensor] = []  # held, so that no later tensor takes their place in memory

    def hook(name: str) -> Any:
        def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            if not isinstance(output, Tensor):
                return
            found[name] = output
            if name not in in_graph and inputs and _another(inputs[0], output):
                folded.append(inputs[0])

        return record

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules() if name]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
        places = {tensor.data_ptr() for tensor in folded}
        for name in [n for n, value in found.items() if calls[n] > 1 or value.data_ptr() in places]:
            del found[name]


def _another(before: Any, after: Tensor) -> bool:
    """Whether a module computed something: an identity, or dropout in evaluation, hands on what it got."""
    return isinstance(before, Tensor) and before.data_ptr() != after.data_ptr()
