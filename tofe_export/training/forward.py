"""What a step computes: images and targets, perhaps mixed, through the network, in a precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from timm.data import Mixup
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tofe_export.documents.training_recipe import TrainingRecipe
from tofe_export.model.outputs import MaskedOutput
from tofe_export.model.selector import gumbel_choice
from tofe_export.model.tofe import ToFe

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class DenseForward(nn.Module):
    """The backbone alone: images [B, 3, H, W] to logits [B, K]."""

    def __init__(self, model: ToFe) -> None:
        super().__init__()
        self.vit = model.vit

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        logits: Tensor = self.vit(images)
        return logits


class MaskedForward(nn.Module):
    """The masked path: images [B, 3, H, W] and Gumbel numbers [S, B, N, 2] (None: no noise) to what it returns."""

    def __init__(self, model: ToFe) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, temperature: Tensor, noise: Tensor, drawn: Tensor | None) -> MaskedOutput:
        """`temperature` and `noise` have no dimensions: torch.compile would compile again for each number."""
        choose = gumbel_choice(temperature, 0.0 if drawn is None else noise, drawn)
        return self.model.forward_masked(images, choose)


@contextlib.contextmanager
def computing(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Products in `dtype`; on a CPU in bfloat16 without fused attention, which there takes twice the time of plain."""
    plain = device.type == "cpu" and dtype == torch.bfloat16
    with (
        torch.autocast(device.type, dtype, enabled=dtype != torch.float32),
        sdpa_kernel(SDPBackend.MATH) if plain else contextlib.nullcontext(),
    ):
        yield


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Of products; "auto" is bfloat16 on a GPU that has it.

    Float16 has too few exponents for the gradient of log(mask + eps): with it the selector learns from the mixture of
    both paths alone.
    """
    if precision == "auto":
        narrow = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if narrow else torch.float32
    return _DTYPES[precision]


def mixup_of(recipe: TrainingRecipe, smoothing: float, classes: int) -> Mixup | None:
    """What mixes the images of a phase with this label smoothing; None where the recipe mixes none."""
    images = recipe.images
    if not (images.mixup or images.cutmix):
        return None
    return Mixup(images.mixup, images.cutmix, prob=images.mixing, label_smoothing=smoothing, num_classes=classes)


def mixed(mixup: Mixup | None, images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Images and targets of a step; an odd number of images, which mix in pairs, is left as it is."""
    if mixup is None or len(images) % 2:
        return images, labels
    state = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        mixed: tuple[Tensor, Tensor] = mixup(images, labels)
    finally:
        np.random.set_state(state)
    return mixed
