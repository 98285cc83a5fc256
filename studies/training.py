"""Training of a teacher or an arm: the product's own phases on images in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import torch

from studies.choices import counts_for
from studies.experiments import FUSED, LEARNED, RANDOM, Arm, ImageSet
from studies.images import Loaded, augmented
from studies.networks import network_of, recipe_of
from studies.paths import Counted, FittedAlone, Fused
from tofe_export.data.images import Batch
from tofe_export.documents.history import DENSE, TOFE
from tofe_export.documents.training_recipe import TrainingRecipe
from tofe_export.errors import InputError
from tofe_export.model.tofe import ToFe
from tofe_export.training import budget
from tofe_export.training.loop import all_scores
from tofe_export.training.phase import Phase, Values, frozen_copy
from tofe_export.training.processes import Processes
from tofe_export.training.seeds import seed_of
from tofe_export.training.setup import copy_blocks, preprocessing_for


@dataclass
class GivenCounts(Phase):
    """A ToFe phase that neither learns how many tokens to keep nor pays for them.

    Its counts fall as the budget of a phase with thresholds does, so that neither has more steps at the full cost.
    """

    arm: Arm = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._counts_at = cache(lambda budget: counts_for(self.model, self.arm.shape, budget))
        counts = self._counts_at(self.recipe.tofe.budget)
        if self.arm.selection == FUSED:
            self.counted: Counted | Fused = Fused(self.model, counts)
        else:
            self.counted = Counted(self.model, counts, self.arm.selection == RANDOM)
        self.forward = self.counted

    def step(self, batches: Sequence[Batch], number: int, seed: int) -> Values:
        """See `Phase.step`."""
        self.counted.counts = self._counts_at(self.steering.target.at(number / (self.epochs * self.steps)))
        return super().step(batches, number, seed)

    def steer(self, share: float, values: Values) -> None:
        """Leaves thresholds and prices alone."""


def train_teacher(images: ImageSet, loaded: Loaded, seed: int, device: torch.device) -> ToFe:
    """The dense network of a seed."""
    recipe = recipe_of(images, None, seed)
    model = network_of(recipe, None, len(loaded.classes)).to(device)
    phase = Phase(DENSE, recipe, model, None, _steps(recipe, loaded), device)
    _run(phase, images, loaded)
    return phase.result.eval()


def train_arm(
    images: ImageSet, arm: Arm, loaded: Loaded, teacher: ToFe, seed: int, device: torch.device
) -> tuple[ToFe, dict[str, list[float]]]:
    """ToFe with the teacher's weights, trained as the arm says, its thresholds set where they are learned.

    Returns:
        The network; and what it was steered with at the end, empty where counts are given.
    """
    recipe = recipe_of(images, arm, seed)
    model = network_of(recipe, arm, len(loaded.classes)).to(device)
    model.vit.load_state_dict(teacher.vit.state_dict())
    copy_blocks(model)
    dense, steps = frozen_copy(teacher.vit), _steps(recipe, loaded)
    if arm.selection == LEARNED:
        budget.require_reachable(model, recipe.tofe.budget)
        phase = Phase(TOFE, recipe, model, dense, steps, device)
    else:
        phase = GivenCounts(TOFE, recipe, model, dense, steps, device, arm=arm)
    if arm.fitted_alone:
        phase.forward = FittedAlone(phase.forward, model)
    _run(phase, images, loaded)
    trained = phase.result.eval()
    if arm.selection == LEARNED:
        plain = [Batch(part, None, ()) for part in torch.split(loaded.plain, 256)]
        budget.set_thresholds(
            trained,
            phase.steering.wanted(1.0),
            lambda: [s.to(device) for s in all_scores(trained, plain, device, Processes())],
        )
    return trained, phase.steering.saved() if arm.selection == LEARNED else {}


def given_counts(model: ToFe, arm: Arm, recipe: TrainingRecipe) -> tuple[int, ...]:
    """Keep counts that an arm which does not learn them comes to."""
    return counts_for(model, arm.shape, recipe.tofe.budget)


def _steps(recipe: TrainingRecipe, loaded: Loaded) -> int:
    return recipe.steps_per_epoch(len(loaded.squares))


def _run(phase: Phase, images: ImageSet, loaded: Loaded) -> None:
    recipe, name = phase.recipe, phase.name
    preprocessing = preprocessing_for(images.name, phase.model.vit)
    phase.model.train()
    for epoch in range(phase.epochs):
        generator = torch.Generator().manual_seed(seed_of(recipe.run.seed, name, epoch))
        order = torch.randperm(len(loaded.squares), generator=generator).to(phase.device)
        for step in range(phase.steps):
            chosen = order[step * recipe.run.batch_size : (step + 1) * recipe.run.batch_size]
            seed = seed_of(recipe.run.seed, name, epoch, step)
            torch.manual_seed(seed)
            crops = augmented(loaded.squares[chosen], recipe.images, preprocessing, not images.stored)
            values = phase.step([Batch(crops, loaded.labels[chosen], ())], epoch * phase.steps + step, seed)
            if not math.isfinite(values["loss"]):
                raise InputError(f"The loss became {values['loss']}.", "Lower its rate.", code="loss-not-finite")
