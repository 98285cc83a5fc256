"""One epoch of either phase: its steps, and then the network on held-out images."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tofe_export.data.images import Batch
from tofe_export.documents.history import DENSE, TOFE
from tofe_export.errors import InputError
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.model.outputs import best_class
from tofe_export.model.selector import threshold_choice
from tofe_export.model.tofe import ToFe
from tofe_export.progress import Progress
from tofe_export.training.forward import autocast_dtype, computing
from tofe_export.training.phase import Phase
from tofe_export.training.processes import Processes
from tofe_export.training.seeds import seed_of


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
        images_per_s: of the last seconds; None before it was measured.
        seconds_left: until the phase ends at that pace, evaluations aside; None before it was measured.
    """

    epoch: str
    loss: float
    accuracy: float
    kept: tuple[float, ...]
    macs_ratio: float | None
    budget: float
    images_per_s: float | None = None
    seconds_left: float | None = None


Watch = Callable[[EpochMeans], None]
"""Called after each training step."""


def unwatched(means: EpochMeans) -> None:
    """Ignores them."""


@dataclass
class EpochSums:
    """What an epoch has summed up over its steps so far; saved, so that a resumed epoch ends with the same means."""

    steps: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, values: dict[str, float]) -> None:
        """One more step's values."""
        self.steps += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """Per step, and so per image: steps are equally large."""
        return {name: total / self.steps for name, total in self.sums.items()}


@dataclass(frozen=True)
class StepTimes:
    """How long a step took, in seconds: all of it, and the part in which it waited for images."""

    step: float
    wait: float


AfterStep = Callable[[EpochSums, StepTimes], None]
"""Called after each step; what it raises ends the run."""


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


def run_epoch(
    phase: Phase,
    epoch: int,
    sums: EpochSums,
    batches: Iterator[Batch],
    progress: Progress,
    watch: Watch,
    after_step: AfterStep,
) -> dict[str, Any]:
    """Trains over `batches` once, or over the rest of them.

    Args:
        phase: network, optimizer and settings; changed in place.
        epoch: number within the phase, from 0.
        sums: of the steps that were made before; changed in place.
        batches: this process's parts of the steps that are left.
        progress: called after each step.
        watch: called with the means so far, before `progress`.
        after_step: called last.

    Returns:
        The epoch's entry for the metrics log: means over its steps.

    Raises:
        InputError: a loss that is not finite.
        MissingError: not enough memory.
    """
    title = f"{'dense backbone' if phase.name == DENSE else 'ToFe'} {epoch + 1}/{phase.epochs}"
    progress(title, sums.steps, phase.steps)
    phase.model.train()
    while sums.steps < phase.steps:
        begun = time.perf_counter()
        parts = [next(batches) for _ in range(phase.recipe.run.accumulate)]
        waited = time.perf_counter() - begun
        number = epoch * phase.steps + sums.steps
        values = phase.step(parts, number, seed_of(phase.recipe.run.seed, phase.name, epoch, sums.steps))
        if not math.isfinite(values["loss"]):
            raise _not_finite(phase, epoch, sums.steps, values["loss"])
        sums.add({name: value for name, value in values.items() if not name.startswith("_")})
        means = sums.means()
        kept = tuple(mean for name, mean in means.items() if name.startswith("train_keep_"))
        ratio = means.get("train_macs_ratio")
        watch(EpochMeans(title, means["loss"], means["accuracy"], kept, ratio, phase.recipe.tofe.budget))
        progress(title, sums.steps, phase.steps)
        after_step(sums, StepTimes(time.perf_counter() - begun, waited))
    entry: dict[str, Any] = {"phase": phase.name, "epoch": epoch + 1}
    entry |= {"images": phase.steps * phase.recipe.run.batch_size, **sums.means()}
    entry["lr"] = max(group["lr"] for group in phase.optimizer.param_groups)
    if phase.name == TOFE:
        entry["temperature"] = phase.temperature(epoch / phase.epochs)
    return entry


def _not_finite(phase: Phase, epoch: int, step: int, loss: float) -> InputError:
    rate = "dense_lr" if phase.name == DENSE else "lr"
    return InputError(
        f"The loss became {loss} at step {step + 1} of epoch {epoch + 1} ({phase.name} phase).",
        f"Resuming would not help: start again in another folder with a smaller `{rate}`.",
        code="loss-not-finite",
        phase=phase.name,
        epoch=epoch + 1,
        step=step + 1,
    )


@torch.no_grad()
def evaluate(
    model: ToFe, dense: bool, batches: Iterable[Batch], device: torch.device, processes: Processes, precision: str
) -> Evaluation:
    """The backbone alone where `dense`, else the threshold path, over the images of all processes.

    Its selection is run on the masked path so that it goes in batches; the logits are the same.
    """
    model.eval()
    stages = 0 if dense else len(model.stages)
    # Images, right ones, MACs as a share; then per stage the kept shares and their squares.
    totals = torch.zeros(3 + 2 * stages, dtype=torch.float64)
    whole, dtype = dense_macs(model.vit), autocast_dtype(precision, device)
    for batch in batches:
        with computing(device, dtype):
            out = None if dense else model.forward_masked(batch.images.to(device), threshold_choice)
            logits = model.vit(batch.images.to(device)) if out is None else out.logits
        assert batch.labels is not None  # see `open_labelled`
        totals[0] += len(batch.names)
        totals[1] += int((best_class(logits).cpu() == batch.labels).sum())
        if out is not None:
            counts = torch.stack([mask.sum(dim=1) for mask in out.masks], dim=1).double().cpu()
            shares = counts / model.tokens
            totals[2] += sum(tofe_macs(model, row) for row in counts.tolist()) / whole
            totals[3:] += torch.cat([shares.sum(dim=0), shares.square().sum(dim=0)])
    images, right, macs, *kept = processes.sums(totals.tolist(), device)
    if dense:
        return Evaluation(right / images)
    means, squares = ([value / images for value in part] for part in (kept[:stages], kept[stages:]))
    spreads = [math.sqrt(max(0.0, square - mean**2)) for mean, square in zip(means, squares, strict=True)]
    return Evaluation(right / images, means, spreads, macs / images)


@torch.no_grad()
def all_scores(model: ToFe, batches: Iterable[Batch], device: torch.device, processes: Processes) -> list[Tensor]:
    """Per stage the scores [images, N] on the threshold path, of all processes; -infinity where a token is gone."""
    model.eval()
    found: list[list[Tensor]] = [[] for _ in model.stages]
    for batch in batches:
        out = model.forward_masked(batch.images.to(device), threshold_choice)
        for stage, scores in enumerate(out.scores):
            found[stage].append(scores.cpu())
    own = [torch.cat([torch.empty(0, model.tokens), *scores]) for scores in found]  # a process may have no image
    of_all = processes.gathered(own)
    return [torch.cat(parts) for parts in zip(*of_all, strict=True)]
