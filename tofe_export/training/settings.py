"""What a training run is asked to do. Plain data: saved with the run's state, compared on resume."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from tofe_export.errors import InputError
from tofe_export.training.losses import LossWeights

FREE_TO_CHANGE = frozenset({"device", "workers"})  # a resumed run may move to another machine
POSITIONS = ("learned", "sincos")


@dataclass(frozen=True)
class TrainSettings:
    """Settings of a run.

    Attributes:
        data: `digits` or a folder of class folders.
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
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        amp: bfloat16 autocast where the GPU has it.
        limit_batches: at most so many steps an epoch; None for all.
        limit_val: at most so many held-out images; None for all.

    Raises:
        InputError: a value that cannot be meant.
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
        _require(self.epochs >= 1, "--epochs", self.epochs, "at least 1")
        _require(self.dense_epochs >= 0, "--dense-epochs", self.dense_epochs, "at least 0")
        _require(self.batch_size >= 1, "--batch-size", self.batch_size, "at least 1")
        _require(0 < self.budget < 1, "--budget", self.budget, "between 0 and 1, such as 0.5")
        _require(0 < self.initial_keep < 1, "initial_keep", self.initial_keep, "between 0 and 1")
        _require(self.lr > 0 and self.dense_lr > 0, "--lr", min(self.lr, self.dense_lr), "above 0")
        _require(self.workers >= 0, "--workers", self.workers, "at least 0")
        _require(self.seed >= 0, "--seed", self.seed, "at least 0")
        _require(self.temperature_start > 0, "temperature_start", self.temperature_start, "above 0")
        _require(self.temperature_end > 0, "temperature_end", self.temperature_end, "above 0")
        _require(0 <= self.quiet_share < 1, "quiet_share", self.quiet_share, "from 0 to below 1")
        _require(self.warmup_epochs >= 0, "warmup_epochs", self.warmup_epochs, "at least 0")
        _require(self.positions in POSITIONS, "positions", self.positions, f"one of {', '.join(POSITIONS)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, for JSON and for `torch.load(weights_only=True)`."""
        return asdict(self)

    def differences(self, saved: dict[str, Any]) -> list[str]:
        """Settings in which a saved run differs from this one, as phrases; free ones do not count."""
        mine = self.to_dict()
        names = sorted((set(mine) | set(saved)) - FREE_TO_CHANGE)
        return [
            f"{name} was {saved.get(name)} and is now {mine.get(name)}"
            for name in names
            if saved.get(name) != mine.get(name)
        ]


def _require(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        raise InputError(f"{name} is {value}, but it must be {wanted}.", "Give another value.")
