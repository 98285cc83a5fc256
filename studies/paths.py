"""Paths through a network that the product does not train on, called as `training.forward.MaskedForward` is; and any
path without estimates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from studies.choices import random_choice, top_choice
from tofe_export.model.approximator import IdentityApproximator
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.outputs import MaskedOutput
from tofe_export.model.tofe import ToFe


class Counted(nn.Module):
    """The masked path with given counts."""

    def __init__(self, model: ToFe, counts: Sequence[int], at_random: bool) -> None:
        super().__init__()
        self.model, self.counts, self.at_random = model, tuple(counts), at_random

    def forward(self, images: Tensor, temperature: Tensor, noise: Tensor, drawn: Tensor | None) -> MaskedOutput:
        """See `MaskedForward`."""
        if self.at_random:
            return self.model.forward_masked(images, random_choice(self.counts))
        return self.model.forward_masked(images, top_choice(self.model, self.counts, temperature, noise, drawn))


class Fused(nn.Module):
    """The fixed path of a network that chooses by attention, answering as the masked path does.

    EViT is trained so (arXiv 2202.07800, section 3): the selection itself has no gradient. Its masks say how many
    tokens ran, not which.
    """

    def __init__(self, model: ToFe, counts: Sequence[int]) -> None:
        super().__init__()
        self.model, self.counts = model, tuple(counts)

    def forward(self, images: Tensor, temperature: Tensor, noise: Tensor, drawn: Tensor | None) -> MaskedOutput:
        """See `MaskedForward`."""
        out = self.model.forward_fixed(images, FixedPath(self.counts))
        shape = (len(images), self.model.tokens)
        place = torch.arange(self.model.tokens, device=images.device).expand(shape)
        masks = [(place < count).float() for count in self.counts]
        return MaskedOutput(out.logits, masks, [], [torch.zeros(shape, device=images.device) for _ in masks])


class FittedAlone(nn.Module):
    """Another path, whose approximators alone learn from what their estimates miss: their input has no gradient there.

    The estimates of the masked path draw the backbone, too, to tokens that are easy to estimate.
    """

    def __init__(self, path: nn.Module, model: ToFe) -> None:
        super().__init__()
        self.path = path
        self.approximators = [stage.approximator for stage in model.stages if isinstance(stage.approximator, nn.Module)]

    def forward(self, images: Tensor, temperature: Tensor, noise: Tensor, drawn: Tensor | None) -> MaskedOutput:
        """See `MaskedForward`."""
        given: list[tuple[Tensor, ...]] = []
        with ExitStack() as hooks:
            for part in self.approximators:
                hooks.enter_context(part.register_forward_pre_hook(lambda part, inputs: given.append(inputs)))
            out: MaskedOutput = self.path(images, temperature, noise, drawn)
        own = [part(*(one.detach() for one in inputs)) for part, inputs in zip(self.approximators, given, strict=True)]
        return replace(out, estimates=own)


@contextmanager
def without_estimates(model: ToFe) -> Iterator[bool]:
    """On any path frozen tokens come back as they went, at no cost; yields whether they usually do otherwise."""
    own = [stage.approximator for stage in model.stages]
    estimated = False
    for stage, approximator in zip(model.stages, own, strict=True):
        if approximator is not None and not isinstance(approximator, IdentityApproximator):
            stage.approximator, estimated = IdentityApproximator(), True
    try:
        yield estimated
    finally:
        for stage, approximator in zip(model.stages, own, strict=True):
            stage.approximator = approximator
