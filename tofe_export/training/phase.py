"""A phase of a run, dense or ToFe: its network, teacher, optimizer, and one step of it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from tofe_export.data.images import Batch
from tofe_export.documents.history import DENSE, TOFE
from tofe_export.documents.history import Phase as Name
from tofe_export.documents.training_recipe import TrainingRecipe
from tofe_export.errors import MissingError
from tofe_export.model.families import Backbone
from tofe_export.model.outputs import MaskedOutput
from tofe_export.model.selector import gumbel_numbers
from tofe_export.model.tofe import ToFe
from tofe_export.training import optimizer, schedule, sharing
from tofe_export.training.forward import DenseForward, MaskedForward, autocast_dtype, computing, mixed, mixup_of
from tofe_export.training.objective import Objective
from tofe_export.training.processes import Processes
from tofe_export.training.steering import Steering

Values = dict[str, float]
"""The parts of a step's loss by name, their sum `loss`, `accuracy`, and in the ToFe phase kept shares and cost; what
begins with an underscore is for the thresholds alone."""


@dataclass
class Phase:
    """A running phase, and the steps it makes.

    Attributes:
        name: `dense` (no teacher) or `tofe`.
        recipe: how.
        model: the network; its weights are changed in place.
        teacher: the dense backbone with frozen weights; None in the dense phase.
        steps: of an epoch.
        device: of the network.
        processes: those that make each step together.
    """

    name: Name
    recipe: TrainingRecipe
    model: ToFe
    teacher: Backbone | None
    steps: int
    device: torch.device
    processes: Processes = field(default_factory=Processes)

    def __post_init__(self) -> None:
        run = self.recipe.run
        self.steering = Steering(self.model, self.recipe.tofe)
        if hasattr(self.model.vit, "set_grad_checkpointing"):
            self.model.vit.set_grad_checkpointing(run.checkpointing)
        if run.channels_last:
            self.model.vit.patch_embed.to(memory_format=torch.channels_last)
        module = DenseForward(self.model) if self.name == DENSE else MaskedForward(self.model)
        if run.compile:
            module.compile()
        # The optimizer takes the parameters as they are shared out.
        self.forward = sharing.shared(module, self.model, self.processes, self.device, run.shard)
        self.optimizer = optimizer.build_optimizer(self.model, self.recipe, self.name == DENSE)
        self.rates = optimizer.Rates(self.optimizer, self.recipe.optimizer, self.epochs, self.steps)
        self.ema: ModelEmaV3 | None = optimizer.build_ema(self.model, run.ema_decay)
        self.dtype = autocast_dtype(run.precision, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.mixup = mixup_of(self.recipe, self.label_smoothing, int(self.model.vit.num_classes))
        smoothing = self.label_smoothing if self.mixup is None else 0.0  # mixing smooths the targets itself
        self.objective = Objective(self.recipe, self.model, self.steering, self.processes, smoothing)

    @property
    def epochs(self) -> int:
        """Of the whole phase."""
        return self.recipe.dense.epochs if self.name == DENSE else self.recipe.tofe.epochs

    @property
    def label_smoothing(self) -> float:
        """Of this phase."""
        return self.recipe.dense.label_smoothing if self.name == DENSE else self.recipe.tofe.label_smoothing

    @property
    def result(self) -> ToFe:
        """What is evaluated and saved: the moving average of the weights where there is one, whole where it is
        sharded. Every process must ask for it."""
        model = self.model if self.ema is None else self.ema.module
        return sharing.whole_copy(model, self.device)

    @property
    def batch_size(self) -> int:
        """Images in one part of a step of one process."""
        return self.recipe.run.batch_size // self.recipe.run.accumulate // self.processes.size

    def temperature(self, share: float) -> float:
        """Of the Gumbel softmax when this share of the phase is done."""
        settings = self.recipe.tofe
        return schedule.temperature_at(share, settings.temperature_start, settings.temperature_end)

    def noise(self, share: float) -> float:
        """Scale of the Gumbel noise when this share of the phase is done."""
        return schedule.noise_at(share, self.recipe.tofe.quiet_share)

    def chunks(self, first_step: int) -> list[range]:
        """Positions in the epoch's order of what this process reads, from a step on: a range a part of a step."""
        size, parts = self.batch_size, self.recipe.run.accumulate
        whole = size * parts * self.processes.size
        first = self.processes.rank * parts * size
        starts = (step * whole + first + part * size for step in range(first_step, self.steps) for part in range(parts))
        return [range(start, start + size) for start in starts]

    def step(self, batches: Sequence[Batch], number: int, seed: int) -> Values:
        """One step of all processes.

        Args:
            batches: this process's parts of it; the images may be changed in place.
            number: of the step in the phase, from 0.
            seed: of everything random in it.

        Returns:
            Means over all images of the step. Where the loss is not finite the weights are as they were.

        Raises:
            MissingError: not enough memory.
        """
        torch.manual_seed((seed + self.processes.rank) % 2**63)
        self.rates.set(number)
        share = number / (self.epochs * self.steps)
        drawn = self._drawn(share, seed)
        sums: Values = {}
        try:
            for part, batch in enumerate(batches):
                last = part == len(batches) - 1
                own = None if drawn is None else drawn[:, part * self.batch_size : (part + 1) * self.batch_size]
                with contextlib.nullcontext() if last else self._without_exchange():
                    values = self._part(batch, share, own, seed + part)
                for name, value in values.items():
                    sums[name] = sums.get(name, 0.0) + value / len(batches)
            sums = self._mean_of_processes(sums)
            if np.isfinite(sums["loss"]):
                self._update(number, share, sums)
            self.optimizer.zero_grad(set_to_none=True)
        except torch.OutOfMemoryError as error:
            raise MissingError(
                f"{self.device} has not enough memory for {self.batch_size} images at a time.",
                "Give run.checkpointing=true in `changes`, with `resume` too; or, in another folder, run.accumulate=2 "
                "or a smaller `batch_size`.",
                code="memory",
                batch=self.batch_size,
            ) from error
        return sums

    def _part(self, batch: Batch, share: float, drawn: Tensor | None, seed: int) -> Values:
        images = batch.images.to(self.device, non_blocking=True)
        labels = batch.labels.to(self.device, non_blocking=True) if batch.labels is not None else None
        assert labels is not None  # see `open_labelled`
        images, targets = mixed(self.mixup, images, labels, seed)
        if self.recipe.run.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with computing(self.device, self.dtype):
            if self.teacher is None:
                logits = self.forward(images)
                terms = self.objective.dense(logits, targets)
            else:
                noise = self.noise(share)
                choice = torch.tensor([self.temperature(share), noise], device=self.device)
                out: MaskedOutput = self.forward(images, *choice.unbind(), drawn)
                logits, terms = out.logits, self.objective.tofe(out, images, targets, self.teacher, share, noise)
        loss = torch.stack([weight * value for weight, value in terms.values() if weight]).sum()
        self.scaler.scale(loss / self.recipe.run.accumulate).backward()  # type: ignore[no-untyped-call]
        values = {name: value.detach() for name, (_, value) in terms.items()}
        values["loss"] = loss.detach()
        values["accuracy"] = (logits.detach().argmax(dim=1) == labels).float().mean()
        numbers = torch.stack([value.float().to(self.device) for value in values.values()])
        return dict(zip(values, numbers.tolist(), strict=True))  # one copy from the device

    def _update(self, number: int, share: float, values: Values) -> None:
        """The optimizer's step from the gradients that lie there, and what follows it."""
        self.scaler.unscale_(self.optimizer)
        optimizer.clip_gradients(self.model, self.recipe.optimizer.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.name == TOFE:
            self.steer(share, values)
        if self.ema is not None:
            self.ema.update(self.model, step=number + 1)

    def steer(self, share: float, values: Values) -> None:
        """Towards the cost that is aimed at when this share of the phase is done."""
        names = ("train_keep", "_rate", "_width")
        kept, rates, widths = ([values[f"{name}_{i}"] for i in range(len(self.model.stages))] for name in names)
        self.steering.step(share, kept, rates, widths)

    def _drawn(self, share: float, seed: int) -> Tensor | None:
        """Gumbel numbers [S, B, N, 2] of this process's images: the same however many processes share a step."""
        if self.name == DENSE or not self.noise(share):
            return None
        generator = torch.Generator(self.device).manual_seed(seed)
        images, own = self.recipe.run.batch_size, self.batch_size * self.recipe.run.accumulate
        shape = (len(self.model.stages), images, self.model.tokens, 2)
        first = self.processes.rank * own
        return gumbel_numbers(shape, self.device, generator)[:, first : first + own]

    def _mean_of_processes(self, values: Values) -> Values:
        sums = self.processes.sums(list(values.values()), self.device)
        return {name: total / self.processes.size for name, total in zip(values, sums, strict=True)}

    def _without_exchange(self) -> contextlib.AbstractContextManager[None]:
        """Gradients of parts before the last are exchanged with it."""
        forward = self.forward
        return forward.no_sync() if isinstance(forward, DistributedDataParallel) else contextlib.nullcontext()

    def saved(self) -> dict[str, Any]:
        """What a resumed run needs besides the network's weights. Every process must ask for it."""
        ema = {} if self.ema is None else self.ema.module.state_dict()
        return {
            "optimizer": sharing.optimizer_state(self.forward, self.optimizer, self.recipe.run.shard),
            "scaler": self.scaler.state_dict(),
            "ema": dict(ema),
            "steering": self.steering.saved() if self.name == TOFE else {},
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """The inverse of `saved`."""
        sharing.load_optimizer_state(self.forward, self.optimizer, saved["optimizer"], self.recipe.run.shard)
        self.scaler.load_state_dict(saved["scaler"])
        if self.name == TOFE:
            self.steering.restore(saved["steering"])
        if self.ema is not None:
            self.ema.module.load_state_dict(saved["ema"])


def frozen_copy(vit: Backbone) -> Backbone:
    """A teacher: the backbone as it is now, without dropout or gradients."""
    teacher = copy.deepcopy(vit).eval().requires_grad_(False)
    if hasattr(teacher, "set_grad_checkpointing"):
        teacher.set_grad_checkpointing(False)
    return teacher
