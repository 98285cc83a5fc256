"""A ToFe network trained for a head that reads every patch: dense first, then with tokens frozen.

`tofe-export train` knows classification only. These few functions are its recipe with the loss of another task: the
task's own loss, the squared error of estimated tokens against the dense network's, and the budget.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from examples.scenes import PATCH, Scene, Scenes, as_input
from tofe_export.model import backbones
from tofe_export.model.config import ToFeConfig
from tofe_export.model.flops import dense_macs
from tofe_export.model.selector import gumbel_choice, threshold_choice
from tofe_export.model.tofe import ToFe
from tofe_export.training import losses, schedule
from tofe_export.training.optimizer import clip_gradients
from tofe_export.training.recipe import read_recipe
from tofe_export.training.setup import build_network

BATCH = 32
RECIPE = read_recipe("digits")
SETTINGS, WEIGHTS = RECIPE.tofe, RECIPE.loss


class Task(Protocol):
    """What a head predicts, how it learns, and how good it is.

    Attributes:
        name: of the task.
        metric: of the figure, in a table.
        sizes: pixels a side of the images that it reads; the first is the network's own.
    """

    name: str
    metric: str
    sizes: tuple[int, ...]

    def head(self, width: int, classes: int) -> nn.Module:
        """From features [B, N, C] in spatial order to a prediction per patch [B, N, ...]."""

    def loss(self, predictions: Tensor, scenes: Sequence[Scene]) -> Tensor:
        """What training minimizes."""

    def score(self, predictions: Tensor, scenes: Sequence[Scene], classes: int) -> float:
        """The figure over all `scenes`, 0..1, higher is better."""


@dataclass
class Learner:
    """A network and its head while they are trained."""

    model: ToFe
    head: nn.Module
    task: Task

    def __post_init__(self) -> None:
        self.twins = {size: at_size(self.model, size) for size in self.task.sizes}

    def at(self, size: int) -> ToFe:
        """The network for images of `size`, with the positions that it has now."""
        twin = self.twins[size]
        if twin is not self.model:
            resize_positions(twin, self.model)
        return twin


def network(size: int, width: int, depth: int, approximator: str, seed: int) -> ToFe:
    """A small ViT with stages, made for features: the last stage estimates its frozen tokens too."""
    arguments = {"img_size": size, "patch_size": PATCH, "embed_dim": width, "depth": depth, "num_heads": width // 16}
    # moco's initialization scales with the width; timm's default stalls in networks this narrow.
    arguments |= {"num_classes": 0, "weight_init": "moco"}
    # The mlp selector would cost a good part of what freezing saves at this width.
    config = ToFeConfig("vit_tiny_patch16_224", arguments, (), "linear", approximator, dense_output=True)
    return build_network(RECIPE.changed(run={"seed": seed}), config, pretrained=False, init=None)[0]


def at_size(model: ToFe, size: int) -> ToFe:
    """`model` for other images: the same parameters in other modules, but for the positions (`resize_positions`)."""
    if backbones.image_shape(model.vit)[1:] == (size, size):
        return model
    twin = copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})
    twin.set_image_size(size, size)
    dense_macs(twin.vit)  # counted once a network on a copy, which a network with computed positions does not allow
    del twin.vit.pos_embed  # a parameter of its own, which nobody would train
    resize_positions(twin, model)
    return twin


def resize_positions(twin: ToFe, model: ToFe) -> None:
    """Resizes as `ToFe.set_image_size` does at export, and lets gradients through."""
    rows, columns = twin.vit.patch_embed.grid_size
    twin.vit.pos_embed = resample_abs_pos_embed(model.vit.pos_embed, [rows, columns], num_prefix_tokens=model.prefix)


def dense_features(model: ToFe, images: Tensor) -> Tensor:
    """Patch tokens [B, N, C] of the backbone alone, after its final norm."""
    _, (tokens,) = backbones.dense_tokens(model.vit, images, [len(model.vit.blocks)])
    features: Tensor = model.vit.norm(tokens)[:, model.prefix :]
    return features


def train_dense(learner: Learner, scenes: Scenes, steps: int, lr: float) -> None:
    """Trains backbone and head; the selectors rest."""

    def loss(size: int, share: float, batch: list[Scene]) -> Tensor:
        return learner.task.loss(learner.head(dense_features(learner.at(size), as_input(batch))), batch)

    _run(learner, [(learner.model.vit, lr), (learner.head, lr)], scenes, steps, loss)


def train_frozen(learner: Learner, scenes: Scenes, steps: int, budget: float) -> None:
    """Trains all parts towards a share of the dense network's multiply-accumulates; it starts as its own teacher."""
    teacher = Learner(copy.deepcopy(learner.model).eval().requires_grad_(False), learner.head, learner.task)

    def loss(size: int, share: float, batch: list[Scene]) -> Tensor:
        model, images = learner.at(size), as_input(batch)
        temperature = schedule.temperature_at(share, SETTINGS.temperature_start, SETTINGS.temperature_end)
        out = model.forward_masked(images, gumbel_choice(temperature, schedule.noise_at(share, SETTINGS.quiet_share)))
        assert out.features is not None
        with torch.no_grad():
            _, ends = backbones.dense_tokens(teacher.at(size).vit, images, [part.stop for part in model.stage_blocks])
        targets = [tokens[:, model.prefix :] for tokens in ends]
        approximation = losses.approximation_loss(out.estimates, out.masks, targets)
        spent = losses.budget_loss(losses.macs_ratio(model, losses.kept_tokens(out.masks)), budget)
        task = learner.task.loss(learner.head(out.features), batch)
        return task + WEIGHTS.approximation * approximation + WEIGHTS.budget * spent

    slow = SETTINGS.lr * SETTINGS.backbone_lr_scale
    parts = [(learner.model.vit, slow), (learner.model.stages, SETTINGS.lr), (learner.head, slow)]
    _run(learner, parts, scenes, steps, loss)


def _run(
    learner: Learner,
    parts: Sequence[tuple[nn.Module, float]],
    scenes: Scenes,
    steps: int,
    loss: Callable[[int, float, list[Scene]], Tensor],
) -> None:
    groups = [{"params": list(part.parameters()), "lr": lr, "peak": lr} for part, lr in parts]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=RECIPE.optimizer.weight_decay, fused=True)
    learner.model.train()
    for step in range(steps):
        share = step / steps
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * max(schedule.learning_rate_factor(share, 0.05), 1e-3)
        size = learner.task.sizes[step % len(learner.task.sizes)]
        optimizer.zero_grad(set_to_none=True)
        value = loss(size, share, scenes.many(range(step * BATCH, (step + 1) * BATCH), size))
        value.backward()
        clip_gradients(learner.model, RECIPE.optimizer.clip_norm)
        nn.utils.clip_grad_norm_(list(learner.head.parameters()), RECIPE.optimizer.clip_norm)
        optimizer.step()
        if step % 50 == 0 or step == steps - 1:
            print(f"  step {step}/{steps}: loss {value.item():.3f}", flush=True)
    learner.model.eval()


@torch.no_grad()
def kept_shares(model: ToFe, scenes: Scenes, size: int, count: int) -> tuple[float, ...]:
    """Mean share of the tokens that each stage keeps on the threshold path, on `count` training scenes."""
    masks = model.forward_masked(as_input(scenes.many(range(count), size)), threshold_choice).masks
    # A stage that keeps nothing on average still runs with one token when exported.
    return tuple(max(float(mask.mean()), 1 / model.tokens) for mask in masks)
