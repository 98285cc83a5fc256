"""The networks of a study, and selectors that the product does not have (yet)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from studies.experiments import LEARNED, Arm, ImageSet
from tofe_export.documents.training_recipe import TrainingRecipe
from tofe_export.model.selector import MlpSelector, Selector
from tofe_export.model.stage import Stage
from tofe_export.model.tofe import ToFe, build_tofe
from tofe_export.training.recipe import config_of, read_recipe
from tofe_export.training.setup import keep_most, set_sincos_positions

_PRECISION = "fp32"  # whoever repeats an arm may have a processor that takes a hundred times as long in bfloat16


class NarrowSelector(Selector):
    """The mlp selector on a quarter of the width."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim // 16)
        self.norm = nn.LayerNorm(dim)
        self.reduce = nn.Linear(dim, dim // 4)
        self.inner = _features_of(MlpSelector(dim // 4, heads))

    def features(self, x: Tensor, seen: Tensor) -> Tensor:
        """See `Selector.features`."""
        return self.inner.features(self.reduce(self.norm(x)), seen)


class SharedSelector(Selector):
    """The features of one mlp selector for all stages, and a last layer of its own, for each needs a threshold."""

    def __init__(self, dim: int, trunk: MlpSelector) -> None:
        super().__init__(dim // 4)
        self.trunk = trunk

    def features(self, x: Tensor, seen: Tensor) -> Tensor:
        """See `Selector.features`."""
        return self.trunk.features(x, seen)


def _features_of(selector: MlpSelector) -> MlpSelector:
    """Without its last layer, which costs nothing where it is not used."""
    del selector.out
    return selector


def recipe_of(images: ImageSet, arm: Arm | None, seed: int) -> TrainingRecipe:
    """How an arm is trained; None is the teacher."""
    changes = {**images.changes, **({} if arm is None else arm.changes), "run.seed": seed, "run.precision": _PRECISION}
    if arm is not None and arm.selection != LEARNED:
        # With given counts nothing is left to pay for.
        changes |= {"loss.budget": 0.0, "loss.spread": 0.0}
    if changes.get("network.approximator") == "identity":
        # It has nothing to fit: the loss would draw the backbone's tokens to those of a teacher further on.
        changes["loss.approximation"] = 0.0
    return read_recipe(images.recipe, changes=changes)


def network_of(recipe: TrainingRecipe, arm: Arm | None, classes: int) -> ToFe:
    """With fresh weights, the same for one seed."""
    torch.manual_seed(recipe.run.seed)
    described = config_of(recipe)
    config = replace(described, backbone_args={**described.backbone_args, "num_classes": classes})
    model = build_tofe(config)
    dim, kind = int(model.vit.embed_dim), "" if arm is None else arm.selector
    stages = [stage for stage in model.stages if isinstance(stage, Stage)]
    trunk = _features_of(MlpSelector(dim, 1))
    for stage in stages:
        if kind:
            stage.selector = NarrowSelector(dim, 1) if kind == "narrow" else SharedSelector(dim, trunk)
    if model.has_threshold:
        keep_most(model, recipe.tofe.initial_keep)
    if recipe.network.positions == "sincos":
        set_sincos_positions(model.vit)
    return model
