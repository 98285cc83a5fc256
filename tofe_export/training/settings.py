"""The settings of a training run. Plain data: saved with the run's state, compared on resume."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tofe_export.bounds import LARGEST_BATCH, require_within
from tofe_export.errors import InputError
from tofe_export.training.losses import LossWeights

POSITIONS = ("learned", "sincos")
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:[0-9]{1,2})?")
_MOST_EPOCHS = 1_000_000
_MOST_WORKERS = 1024
_LARGEST_SEED = 2**32 - 1  # that every library takes
_LARGEST_RATE = 1000.0


@dataclass(frozen=True)
class TrainSettings:
    """Settings of a run.

    Attributes:
        data: `digits` or a folder of images with labels, as `open_source` takes it.
        epochs: of ToFe fine-tuning.
        dense_epochs: of the dense backbone before it; skipped when there are pretrained or given weights.
        batch_size: images a step.
        lr: peak learning rate of selectors and approximators.
        backbone_lr_scale: the backbone's share of `lr` during fine-tuning.
        dense_lr: peak learning rate of the dense phase.
        weight_decay: of matrices; biases, norms and positions have none.
        warmup_epochs: of either phase, linear.
        clip_norm: largest gradient norm.
        budget: MACs of ToFe as a share of the dense backbone's, 0 < budget < 1.
        initial_keep: probability with which fresh selectors keep a token, 0 < initial_keep < 1.
        temperature_start, temperature_end: of the Gumbel softmax, geometric in between.
        quiet_share: last share of fine-tuning without Gumbel noise, so that it ends on the threshold path.
        loss: weights of the loss parts.
        positions: position embedding that a backbone without weights starts from, `learned` (random) or `sincos`.
        seed: of everything random.
        workers: processes that decode images; 0 decodes in this one.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        amp: bfloat16 autocast where the GPU has it.
        limit_batches: at most N steps per epoch; None for all.
        limit_val: at most N held-out images; None for all.

    Raises:
        InputError: a value out of its range.
    """

    data: str = "digits"
    epochs: int = 30
    dense_epochs: int = 30
    batch_size: int = 128
    lr: float = 1e-3
    backbone_lr_scale: float = 0.05
    dense_lr: float = 1e-3
    weight_decay: float = 0.05
    warmup_epochs: float = 1.0
    clip_norm: float = 1.0
    budget: float = 0.5
    initial_keep: float = 0.9
    temperature_start: float = 1.0
    temperature_end: float = 0.3
    quiet_share: float = 0.2
    loss: LossWeights = field(default_factory=LossWeights)
    positions: str = "learned"
    seed: int = 0
    workers: int = 0
    device: str = "auto"
    amp: bool = True
    limit_batches: int | None = None
    limit_val: int | None = None

    def __post_init__(self) -> None:
        require_within("epochs", self.epochs, 1, _MOST_EPOCHS)
        require_within("dense_epochs", self.dense_epochs, 0, _MOST_EPOCHS)
        require_within("batch_size", self.batch_size, 1, LARGEST_BATCH)
        _require(0 < self.budget < 1, "budget", self.budget, "between 0 and 1, such as 0.5")
        _require(0 < self.initial_keep < 1, "initial_keep", self.initial_keep, "between 0 and 1")
        for name, rate in (("lr", self.lr), ("dense_lr", self.dense_lr)):
            _require(0 < rate <= _LARGEST_RATE, name, rate, f"above 0 and at most {_LARGEST_RATE:,.0f}")
        require_within("backbone_lr_scale", self.backbone_lr_scale, 0.0, _LARGEST_RATE)
        require_within("weight_decay", self.weight_decay, 0.0, _LARGEST_RATE)
        require_within("workers", self.workers, 0, _MOST_WORKERS)
        require_within("seed", self.seed, 0, _LARGEST_SEED)
        if not _DEVICE.fullmatch(self.device):
            raise InputError(
                f"There is no device {self.device!r}.",
                "Use auto, cpu, cuda or cuda:N.",
                code="unknown-device",
                name=self.device,
            )
        _require(self.temperature_start > 0, "temperature_start", self.temperature_start, "above 0")
        _require(self.temperature_end > 0, "temperature_end", self.temperature_end, "above 0")
        _require(0 <= self.quiet_share < 1, "quiet_share", self.quiet_share, "from 0 to below 1")
        _require(self.warmup_epochs >= 0, "warmup_epochs", self.warmup_epochs, "at least 0")
        _require(self.positions in POSITIONS, "positions", self.positions, f"one of {', '.join(POSITIONS)}")


def _require(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        raise InputError(
            f"`{name}` is {value}, but it must be {wanted}.",
            "Give another value.",
            code="out-of-range",
            name=name,
            value=value,
        )
