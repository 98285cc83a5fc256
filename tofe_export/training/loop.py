"""One epoch of either phase."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from rich.progress import Progress, TaskID
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tofe_export.data.images import Batch
from tofe_export.errors import InputError, MissingError
from tofe_export.model import backbones
from tofe_export.model.choices import gumbel_choice
from tofe_export.model.flops import dense_macs
from tofe_export.model.tofe import ToFe
from tofe_export.training import losses, schedule
from tofe_export.training.settings import TrainSettings


@dataclass(frozen=True)
class Phase:
    """A phase in progress: `dense` (no teacher) or `tofe`."""

    name: str
    epochs: int
    model: ToFe
    teacher: VisionTransformer | None
    optimizer: torch.optim.Optimizer
    settings: TrainSettings
    device: torch.device

    def progress(self, epoch: int, step: int, steps: int) -> float:
        """Share of the phase that is done, 0..1."""
        return (epoch + step / steps) / self.epochs


def run_epoch(
    phase: Phase, epoch: int, batches: Iterable[Batch], steps: int, progress: Progress | None
) -> dict[str, Any]:
    """Trains over `batches` once.

    Args:
        phase: network, optimizer and settings; changed in place.
        epoch: number within the phase, from 0.
        batches: about `steps` of them.
        steps: what the schedules count with.
        progress: shows a bar with loss, accuracy, kept ratios and budget.

    Returns:
        The epoch's entry for the metrics log: means over its images.

    Raises:
        InputError: a loss that is no number, or images without labels.
        MissingError: not enough memory.
    """
    settings, totals, images = phase.settings, defaultdict[str, float](float), 0
    dense = dense_macs(phase.model.vit)
    task = None if progress is None else progress.add_task(_title(phase, epoch), total=steps, status="")
    phase.model.train()
    for step, batch in enumerate(batches):
        share = phase.progress(epoch, min(step, steps - 1), steps)
        _set_rates(phase, share)
        try:
            parts = _step(phase, batch, share, dense)
        except torch.OutOfMemoryError as error:
            raise MissingError(
                f"{phase.device} has not enough memory for batches of {settings.batch_size} images.",
                "Give a smaller --batch-size.",
            ) from error
        if not math.isfinite(parts["loss"]):
            raise InputError(
                f"The loss became {parts['loss']} at step {step + 1} of epoch {epoch + 1} ({phase.name} phase).",
                "Resume is not of use here: start again with a smaller --lr and --dense-lr.",
            )
        count = len(batch.names)
        images += count
        for name, value in parts.items():
            totals[name] += value * count
        _show(progress, task, totals, images, settings.budget)
    if progress is not None and task is not None:
        progress.update(task, completed=steps)
    means = {name: value / max(1, images) for name, value in totals.items()}
    share = phase.progress(epoch, 0, 1)
    entry: dict[str, Any] = {"phase": phase.name, "epoch": epoch + 1, "images": images, **means}
    entry["lr"] = max(group["lr"] for group in phase.optimizer.param_groups)
    if phase.teacher is not None:
        entry["temperature"] = schedule.temperature_at(share, settings.temperature_start, settings.temperature_end)
    return entry


def _step(phase: Phase, batch: Batch, share: float, dense: float) -> dict[str, float]:
    if batch.labels is None:
        raise InputError(
            "Some training images have no labels.", "Give a folder with one subfolder of images per class."
        )
    images, labels = batch.images.to(phase.device), batch.labels.to(phase.device)
    with _autocast(phase):
        logits, parts = _forward(phase, images, labels, share, dense)
    loss = torch.stack([weight * part for weight, part in parts.values()]).sum()
    phase.optimizer.zero_grad(set_to_none=True)
    found = {name: float(part.detach()) for name, (_, part) in parts.items()}
    found["loss"] = float(loss.detach())
    if math.isfinite(found["loss"]):
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = [p for group in phase.optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, phase.settings.clip_norm)
        phase.optimizer.step()
    found["accuracy"] = float((logits.detach().argmax(dim=1) == labels).float().mean())
    return found


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
    targets = [found[:, model.prefix :] for found in tokens]
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


def _title(phase: Phase, epoch: int) -> str:
    label = "dense backbone" if phase.name == "dense" else "ToFe"
    return f"{label} {epoch + 1}/{phase.epochs}"


def _show(progress: Progress | None, task: TaskID | None, totals: dict[str, float], images: int, budget: float) -> None:
    if progress is None or task is None:
        return
    status = f"loss {totals['loss'] / images:.3f}  accuracy {totals['accuracy'] / images:.1%}"
    kept = [totals[name] / images for name in sorted(totals) if name.startswith("train_keep_")]
    if kept:
        shares = " ".join(f"{share:.2f}" for share in kept)
        status += f"  kept {shares}  MACs {totals['train_macs_ratio'] / images:.2f} (budget {budget:g})"
    progress.update(task, advance=1, status=status)
