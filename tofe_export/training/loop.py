"""One epoch of either phase: its steps, and then the network on held-out images."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tofe_export.data.images import Batch
from tofe_export.errors import InputError, MissingError
from tofe_export.model import backbones
from tofe_export.model.families import Backbone
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.model.outputs import best_class
from tofe_export.model.selector import gumbel_choice, threshold_choice
from tofe_export.model.tofe import ToFe
from tofe_export.progress import Progress
from tofe_export.training import losses, schedule
from tofe_export.training.settings import TrainSettings


@dataclass(frozen=True)
class EpochMeans:
    """Means over the images of an epoch so far, for whoever watches a training run.

    Attributes:
        epoch: its title, as `Progress` calls it: "ToFe 3/30".
        loss: the weighted sum.
        accuracy: top-1 on the training images, 0..1.
        kept: share of the tokens kept per stage; empty in the dense phase.
        macs_ratio: MACs as a share of the dense backbone's; None in the dense phase.
        budget: the share that `macs_ratio` is trained towards.
    """

    epoch: str
    loss: float
    accuracy: float
    kept: tuple[float, ...]
    macs_ratio: float | None
    budget: float


Watch = Callable[[EpochMeans], None]
"""Called after each training step."""


def unwatched(means: EpochMeans) -> None:
    """Ignores them."""


@dataclass(frozen=True)
class Evaluation:
    """What the metrics log says of the held-out images.

    Attributes:
        val_accuracy: top-1, 0..1.
        keep_mean, keep_std: per stage, mean and standard deviation over images of the kept share of tokens,
            on the threshold path; empty for the dense backbone.
        macs_ratio: mean over images of their own MACs, as a share of the dense backbone's.
    """

    val_accuracy: float
    keep_mean: list[float] = field(default_factory=list)
    keep_std: list[float] = field(default_factory=list)
    macs_ratio: float = 1.0


@dataclass(frozen=True)
class Phase:
    """A running phase: `dense` (no teacher) or `tofe`."""

    name: str
    epochs: int
    model: ToFe
    teacher: Backbone | None
    optimizer: torch.optim.Optimizer
    settings: TrainSettings
    device: torch.device

    def temperature(self, share: float) -> float:
        """Of the Gumbel softmax when this share of the phase is done."""
        return schedule.temperature_at(share, self.settings.temperature_start, self.settings.temperature_end)


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
        InputError: a loss that is not finite.
        MissingError: not enough memory.
    """
    totals, means, images = defaultdict[str, float](float), dict[str, float](), 0
    title = f"{'dense backbone' if phase.teacher is None else 'ToFe'} {epoch + 1}/{phase.epochs}"
    progress(title, 0, steps)
    phase.model.train()
    for step, batch in enumerate(batches):
        parts = _step(phase, batch, (epoch + min(step, steps - 1) / steps) / phase.epochs)
        if not math.isfinite(parts["loss"]):
            raise InputError(
                f"The loss became {parts['loss']} at step {step + 1} of epoch {epoch + 1} ({phase.name} phase).",
                "Resuming would not help: start again with a smaller `lr` and `dense_lr`.",
                code="loss-not-finite",
                phase=phase.name,
                epoch=epoch + 1,
                step=step + 1,
            )
        images += len(batch.names)
        for name, value in parts.items():
            totals[name] += value * len(batch.names)
        means = {name: total / images for name, total in totals.items()}
        kept = tuple(mean for name, mean in means.items() if name.startswith("train_keep_"))
        ratio = means.get("train_macs_ratio")
        watch(EpochMeans(title, means["loss"], means["accuracy"], kept, ratio, phase.settings.budget))
        progress(title, step + 1, steps)
    entry: dict[str, Any] = {"phase": phase.name, "epoch": epoch + 1, "images": images, **means}
    entry["lr"] = max(group["lr"] for group in phase.optimizer.param_groups)
    if phase.teacher is not None:
        entry["temperature"] = phase.temperature(epoch / phase.epochs)
    return entry


@torch.no_grad()
def evaluate(model: ToFe, dense: bool, batches: Iterable[Batch], device: torch.device) -> Evaluation:
    """The backbone alone where `dense`, else the threshold path.

    Its selection is run on the masked path so that it goes in batches; the logits are the same.
    """
    model.eval()
    right = images = 0
    kept: list[Tensor] = []
    for batch in batches:
        if dense:
            logits = model.vit(batch.images.to(device))
        else:
            out = model.forward_masked(batch.images.to(device), threshold_choice)
            logits = out.logits
            kept.append(torch.stack([mask.sum(dim=1) for mask in out.masks], dim=1).cpu())
        assert batch.labels is not None  # see `open_labelled`
        right += int((best_class(logits).cpu() == batch.labels).sum())
        images += len(batch.names)
    if dense:
        return Evaluation(right / images)
    counts = torch.cat(kept).double()  # [images, stages]: small, whatever the number of images
    ratios = counts / model.tokens
    macs = sum(tofe_macs(model, row) for row in counts.tolist())
    return Evaluation(
        val_accuracy=right / images,
        keep_mean=ratios.mean(dim=0).tolist(),
        keep_std=ratios.std(dim=0, correction=0).tolist(),
        macs_ratio=macs / images / dense_macs(model.vit),
    )


def _step(phase: Phase, batch: Batch, share: float) -> dict[str, float]:
    """One step, when `share` of the phase is done: the parts of the loss, their sum, and the accuracy."""
    assert batch.labels is not None  # see `open_labelled`
    factor = schedule.learning_rate_factor(share, min(0.9, phase.settings.warmup_epochs / phase.epochs))
    for group in phase.optimizer.param_groups:
        # A first step at rate 0 would be wasted, and log as one.
        group["lr"] = group["peak_lr"] * max(factor, 1e-3)
    try:
        images, labels = batch.images.to(phase.device), batch.labels.to(phase.device)
        # Never float16: the gradient of log(mask + eps) needs float32's exponents, which bfloat16 has.
        narrow = phase.settings.amp and phase.device.type == "cuda" and torch.cuda.is_bf16_supported()
        with torch.autocast(phase.device.type, torch.bfloat16, enabled=narrow):
            logits, parts = _forward(phase, images, labels, share)
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
    except torch.OutOfMemoryError as error:
        raise MissingError(
            f"{phase.device} has not enough memory for batches of {phase.settings.batch_size} images.",
            "Give a smaller `batch_size`.",
            code="memory",
            batch=phase.settings.batch_size,
        ) from error
    return values


Parts = dict[str, tuple[float, Tensor]]
"""name -> (weight, loss part)."""


def _forward(phase: Phase, images: Tensor, labels: Tensor, share: float) -> tuple[Tensor, Parts]:
    model, settings, weights = phase.model, phase.settings, phase.settings.loss
    if phase.teacher is None:
        logits: Tensor = model.vit(images)
        return logits, {"classification": (1.0, losses.classification_loss(logits, labels, weights.label_smoothing))}
    choose = gumbel_choice(phase.temperature(share), schedule.noise_at(share, settings.quiet_share))
    out = model.forward_masked(images, choose)
    ends = [blocks.stop for blocks in model.stage_blocks[: len(out.estimates)]]
    with torch.no_grad():
        teacher_logits, tokens = backbones.dense_tokens(phase.teacher, images, ends)
    classification = losses.classification_loss(out.logits, labels, weights.label_smoothing)
    distillation = losses.distillation_loss(out.logits, teacher_logits)
    targets = [at_end[:, model.prefix :] for at_end in tokens]
    approximation = losses.approximation_loss(out.estimates, out.masks, targets).to(phase.device)
    ratio = losses.macs_ratio(model, out.masks)
    return out.logits, {
        "classification": (weights.classification, classification),
        "distillation": (weights.distillation, distillation),
        "approximation": (weights.approximation, approximation),
        "budget": (weights.budget, losses.budget_loss(ratio, settings.budget)),
        "train_macs_ratio": (0.0, ratio),
        **{f"train_keep_{stage}": (0.0, mask.mean()) for stage, mask in enumerate(out.masks)},
    }
