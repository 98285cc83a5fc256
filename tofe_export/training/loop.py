"""One epoch of either phase."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tofe_export.data.images import Batch
from tofe_export.errors import InputError, MissingError
from tofe_export.model import backbones
from tofe_export.model.flops import dense_macs
from tofe_export.model.selector import gumbel_choice
from tofe_export.model.tofe import ToFe
from tofe_export.progress import Progress
from tofe_export.training import losses, schedule
from tofe_export.training.progress import EpochMeans, Watch
from tofe_export.training.settings import TrainSettings


@dataclass(frozen=True)
class Phase:
    """A running phase: `dense` (no teacher) or `tofe`."""

    name: str
    epochs: int
    model: ToFe
    teacher: VisionTransformer | None
    optimizer: torch.optim.Optimizer
    settings: TrainSettings
    device: torch.device

    def share_done(self, epoch: int, step: int, steps: int) -> float:
        """Share of the phase that is done, 0..1."""
        return (epoch + step / steps) / self.epochs

    def title(self, epoch: int) -> str:
        """What `Progress` calls an epoch: "ToFe 3/30"."""
        return f"{'dense backbone' if self.name == 'dense' else 'ToFe'} {epoch + 1}/{self.epochs}"


def run_epoch(
    phase: Phase, epoch: int, batches: Iterable[Batch], steps: int, progress: Progress, watch: Watch
) -> dict[str, Any]:
    """Trains over `batches` once.

    Args:
        phase: network, optimizer and settings; changed in place.
        epoch: number within the phase, from 0.
        batches: about `steps` of them.
        steps: the number of steps that the schedules assume.
        progress: called after each step.
        watch: called with the means so far, before `progress`.

    Returns:
        The epoch's entry for the metrics log: means over its images.

    Raises:
        InputError: a loss that is not finite, or images without labels.
        MissingError: not enough memory.
    """
    settings, totals, images = phase.settings, defaultdict[str, float](float), 0
    dense, title = dense_macs(phase.model.vit), phase.title(epoch)
    progress(title, 0, steps)
    phase.model.train()
    for step, batch in enumerate(batches):
        share = phase.share_done(epoch, min(step, steps - 1), steps)
        _set_rates(phase, share)
        try:
            parts = _step(phase, batch, share, dense)
        except torch.OutOfMemoryError as error:
            raise MissingError(
                f"{phase.device} has not enough memory for batches of {settings.batch_size} images.",
                "Give a smaller `batch_size`.",
                code="memory",
                batch=settings.batch_size,
            ) from error
        if not math.isfinite(parts["loss"]):
            raise InputError(
                f"The loss became {parts['loss']} at step {step + 1} of epoch {epoch + 1} ({phase.name} phase).",
                "Resuming would not help: start again with a smaller `lr` and `dense_lr`.",
                code="loss-not-finite",
                phase=phase.name,
                epoch=epoch + 1,
                step=step + 1,
            )
        count = len(batch.names)
        images += count
        for name, value in parts.items():
            totals[name] += value * count
        watch(EpochMeans.of(title, totals, images, settings.budget))
        progress(title, step + 1, steps)
    means = {name: value / max(1, images) for name, value in totals.items()}
    share = phase.share_done(epoch, 0, 1)
    entry: dict[str, Any] = {"phase": phase.name, "epoch": epoch + 1, "images": images, **means}
    entry["lr"] = max(group["lr"] for group in phase.optimizer.param_groups)
    if phase.teacher is not None:
        entry["temperature"] = schedule.temperature_at(share, settings.temperature_start, settings.temperature_end)
    return entry


def _step(phase: Phase, batch: Batch, share: float, dense: float) -> dict[str, float]:
    if batch.labels is None:
        raise InputError(
            "Some training images have no labels.",
            "Give a folder with one subfolder of images per class.",
            code="no-labels",
        )
    images, labels = batch.images.to(phase.device), batch.labels.to(phase.device)
    with _autocast(phase):
        logits, parts = _forward(phase, images, labels, share, dense)
    loss = torch.stack([weight * part for weight, part in parts.values()]).sum()
    phase.optimizer.zero_grad(set_to_none=True)
    values = {name: float(part.detach()) for name, (_, part) in parts.items()}
    values["loss"] = float(loss.detach())
    if math.isfinite(values["loss"]):
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = [p for group in phase.optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, phase.settings.clip_norm)
        phase.optimizer.step()
    values["accuracy"] = float((logits.detach().argmax(dim=1) == labels).float().mean())
    return values


Parts = dict[str, tuple[float, Tensor]]
"""name -> (weight, loss part)."""


def _forward(phase: Phase, images: Tensor, labels: Tensor, share: float, dense: float) -> tuple[Tensor, Parts]:
    model, weights = phase.model, phase.settings.loss
    if phase.teacher is None:
        logits: Tensor = model.vit(images)
        return logits, {"classification": (1.0, losses.classification_loss(logits, labels, weights.label_smoothing))}
    settings = phase.settings
    choose = gumbel_choice(
        schedule.temperature_at(share, settings.temperature_start, settings.temperature_end),
        schedule.noise_at(share, settings.quiet_share),
    )
    out = model.forward_masked(images, choose)
    ends = [blocks.stop for blocks in model.stage_blocks[: len(out.estimates)]]
    with torch.no_grad():
        teacher_logits, tokens = backbones.dense_tokens(phase.teacher, images, ends)
    targets = [at_end[:, model.prefix :] for at_end in tokens]
    ratio = losses.macs_ratio(model, out.masks, dense)
    return out.logits, {
        "classification": (
            weights.classification,
            losses.classification_loss(out.logits, labels, weights.label_smoothing),
        ),
        "distillation": (weights.distillation, losses.distillation_loss(out.logits, teacher_logits)),
        "approximation": (
            weights.approximation,
            losses.approximation_loss(out.estimates, out.masks, targets).to(phase.device),
        ),
        "budget": (weights.budget, losses.budget_loss(ratio, settings.budget)),
        "train_macs_ratio": (0.0, ratio),
        **{f"train_keep_{stage}": (0.0, mask.mean()) for stage, mask in enumerate(out.masks)},
    }


def _set_rates(phase: Phase, share: float) -> None:
    factor = schedule.learning_rate_factor(share, min(0.9, phase.settings.warmup_epochs / phase.epochs))
    for group in phase.optimizer.param_groups:
        # A first step at rate 0 would be wasted, and log as one.
        group["lr"] = group["peak_lr"] * max(factor, 1e-3)


def _autocast(phase: Phase) -> AbstractContextManager[Any]:
    """bfloat16, never float16: the gradient of log(mask + eps) needs float32's exponents."""
    if phase.settings.amp and phase.device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()
