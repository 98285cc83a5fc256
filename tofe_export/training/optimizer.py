"""Optimizer, learning rates and moving average of a phase, by timm."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from timm.optim import (
    create_optimizer_v2,
    get_optimizer_class,
    list_optimizers,
    param_groups_layer_decay,
    param_groups_weight_decay,
)
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import nn

from tofe_export.documents.training_recipe import OptimizerTable, TrainingRecipe
from tofe_export.errors import InputError, nearest
from tofe_export.model.tofe import ToFe

_WITHOUT_DECAY = (
    *("pos_embed", "cls_token", "reg_token", "dist_token"),
    *("relative_position_bias_table", "rope.freqs"),
)
_PHASE_AT_MOST = 0.9  # of it is warm-up


def build_optimizer(model: ToFe, recipe: TrainingRecipe, dense: bool) -> torch.optim.Optimizer:
    """The optimizer of a phase. The dense one trains the backbone alone.

    Raises:
        InputError: timm has no such optimizer, or it does not take these settings.
    """
    settings = recipe.optimizer
    require_optimizer(settings.name)
    if dense:
        groups = _groups(model.vit, settings, recipe.dense.lr, settings.layer_decay)
    else:
        backbone_lr = recipe.tofe.lr * recipe.tofe.backbone_lr_scale
        groups = _groups(model.vit, settings, backbone_lr, settings.layer_decay)
        _, selectors, approximators = parts_of(model)
        groups += _groups(selectors, settings, recipe.tofe.lr * recipe.tofe.selector_lr_scale, 1.0)
        groups += _groups(approximators, settings, recipe.tofe.lr, 1.0)
    more: dict[str, Any] = {"fused": True} if settings.name in ("adam", "adamw") else {}  # one kernel for all weights
    try:
        if _has_two_betas(settings.name):
            more["betas"] = settings.betas
        optimizer: torch.optim.Optimizer = create_optimizer_v2(groups, settings.name, lr=recipe.tofe.lr, **more)
    except (TypeError, ValueError, RuntimeError, ImportError, AssertionError) as error:
        raise InputError(
            f"The optimizer {settings.name!r} cannot be used: {str(error).partition(chr(10))[0]}",
            "Use another, such as adamw.",
            code="optimizer",
            name=settings.name,
        ) from error
    return optimizer


def parts_of(model: ToFe) -> tuple[nn.Module, nn.ModuleList, nn.ModuleList]:
    """The backbone, the selectors and the approximators, which have rates of their own and are clipped separately."""
    selectors, approximators = (
        nn.ModuleList(one for stage in model.stages if (one := getattr(stage, part)) is not None)
        for part in ("selector", "approximator")
    )
    return model.vit, selectors, approximators


def clip_gradients(model: ToFe, norm: float) -> None:
    """Scales the gradients of each part down to a norm of at most `norm`; 0 leaves them as they are.

    Each by itself: where few tokens are kept, selectors' gradients are larger than the others by orders of magnitude.
    """
    if not norm:
        return
    for part in parts_of(model):
        torch.nn.utils.clip_grad_norm_(list(part.parameters()), norm)


def _has_two_betas(name: str) -> bool:
    """Whether it takes a pair of them; some take three, and of some no momentum is the default."""
    betas = inspect.signature(get_optimizer_class(name, bind_defaults=False)).parameters.get("betas")
    return betas is not None and isinstance(betas.default, tuple) and len(betas.default) == 2


def require_optimizer(name: str) -> None:
    """Raises InputError unless timm has an optimizer of this name."""
    if name not in list_optimizers():
        raise InputError(
            f"timm has no optimizer called {name!r}.",
            f"Nearest: {nearest(name, list_optimizers())}.",
            code="unknown-optimizer",
            name=name,
        )


class Rates:
    """The learning rates over a phase: timm's schedule, as a factor of every group's own rate.

    timm's schedules fall to one rate for all groups, which would be above the peak of a slow one.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, settings: OptimizerTable, epochs: int, steps: int) -> None:
        self._optimizer = optimizer  # and not its groups: others take their place where a state is loaded
        self._peaks = [group["lr"] * group.get("lr_scale", 1.0) for group in optimizer.param_groups]
        self._factor = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        self._schedule, _ = create_scheduler_v2(
            self._factor,
            sched=settings.schedule,
            num_epochs=epochs,
            warmup_epochs=min(settings.warmup_epochs, _PHASE_AT_MOST * epochs),
            warmup_lr=0.0,
            min_lr=settings.last_lr,
            decay_rate=1.0,  # the power of "poly": a straight line
            step_on_epochs=False,
            updates_per_epoch=steps,
        )

    def set(self, step: int) -> None:
        """Those for a step of the phase, from 0: as they are in its middle, so that none is 0."""
        self._schedule.step_update(step + 0.5)
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * self._factor.param_groups[0]["lr"]


def build_ema(model: nn.Module, decay: float) -> ModelEmaV3 | None:
    """The moving average of a model's weights, which follows fast at first; None for a decay of 0."""
    return ModelEmaV3(model, decay=decay, use_warmup=True) if decay else None


def _groups(module: nn.Module, settings: OptimizerTable, lr: float, layer_decay: float) -> list[dict[str, Any]]:
    without = [name for name, _ in module.named_parameters() if name.endswith(_WITHOUT_DECAY)]
    if layer_decay < 1:
        groups = param_groups_layer_decay(module, settings.weight_decay, without, layer_decay=layer_decay)
    else:
        groups = param_groups_weight_decay(module, settings.weight_decay, no_weight_decay_list=without)
    return [{**group, "lr": lr} for group in groups if group["params"]]
