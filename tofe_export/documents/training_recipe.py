"""A training recipe: everything that decides what a run learns, as it stands in a TOML file and in the run's state.

Where the images lie, on which device and by how many processes they are read decides nothing of that, and is not here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tofe_export.bounds import LARGEST_BATCH
from tofe_export.documents.fields import AnyValue, Flag, Name, Share, Text
from tofe_export.documents.toml import Table

MOST_EPOCHS = 1_000_000
LARGEST_SEED = 2**32 - 1  # that every library takes
LARGEST_RATE = 1000.0

Positions = Literal["learned", "sincos"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Epochs = Annotated[int, Field(strict=True, ge=0, le=MOST_EPOCHS)]
SomeEpochs = Annotated[int, Field(strict=True, ge=1, le=MOST_EPOCHS)]
Rate = Annotated[float, Field(strict=True, gt=0, le=LARGEST_RATE)]
Weight = Annotated[float, Field(strict=True, ge=0, le=LARGEST_RATE)]
Temperature = Annotated[float, Field(strict=True, ge=1e-3, le=LARGEST_RATE)]
Inside = Annotated[float, Field(strict=True, gt=0, lt=1)]
Below1 = Annotated[float, Field(strict=True, ge=0, lt=1)]
Batch = Annotated[int, Field(strict=True, ge=1, le=LARGEST_BATCH)]
Limit = Annotated[int | None, Field(strict=True, ge=1)]


class NetworkTable(Table):
    """The network; see `ToFeConfig`.

    Attributes:
        positions: position embedding that a backbone without weights starts from: "learned" (random) or "sincos".
    """

    backbone: Name = "deit_small_patch16_224"
    backbone_args: dict[str, AnyValue] = {}
    stages: tuple[int, ...] = ()
    selector: Name = "mlp"
    approximator: Name = "bottleneck"
    dense_output: Flag = False
    positions: Positions = "learned"


class ImagesTable(Table):
    """What training does to its images, in the order in which it is done. timm does it all.

    Attributes:
        scale: of the area that a random crop takes, least and most; (1, 1) takes the crop of evaluation.
        flip: probability of a mirror image.
        color_jitter: strength; unused where there is `auto_augment`.
        auto_augment: a policy in timm's words, such as "rand-m9-mstd0.5-inc1"; "" for none.
        erasing: probability that a rectangle is erased.
        repeats: how often an epoch shows an image that it shows; it then shows fewer images, in proportion.
        mixup, cutmix: alpha of either; 0 for none. Where both are on, each has half of the steps.
        mixing: share of the steps that mix at all.
    """

    scale: tuple[Inside, Annotated[float, Field(strict=True, gt=0, le=1)]] = (0.08, 1.0)
    flip: Share = 0.5
    color_jitter: Weight = 0.0
    auto_augment: Text = "rand-m9-mstd0.5-inc1"
    erasing: Share = 0.25
    repeats: Annotated[int, Field(strict=True, ge=1, le=100)] = 1
    mixup: Weight = 0.0
    cutmix: Weight = 0.0
    mixing: Share = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale is {list(self.scale)}, but the least comes first")
        return self


class OptimizerTable(Table):
    """Optimizer and learning rates over a phase.

    Attributes:
        name: of an optimizer in timm.
        betas: of those that have two.
        weight_decay: of matrices; biases, norms and positions have none.
        layer_decay: each block of the backbone has this share of the next one's rate; 1 for equal rates.
        clip_norm: largest norm of the gradients of the backbone, of the selectors and of the approximators, each by
            itself; 0 does not clip.
        schedule: of the learning rate after warm-up.
        warmup_epochs: of either phase, linear; at most nine tenths of it.
        last_lr: what is left of each peak rate at the end.
    """

    name: Name = "adamw"
    betas: tuple[Below1, Below1] = (0.9, 0.95)
    weight_decay: Weight = 0.05
    layer_decay: Annotated[float, Field(strict=True, gt=0, le=1)] = 1.0
    clip_norm: Weight = 1.0
    schedule: Literal["cosine", "tanh", "poly"] = "cosine"
    warmup_epochs: Weight = 1.0
    last_lr: Below1 = 0.0


class DenseTable(Table):
    """The first phase, for a backbone without weights.

    Attributes:
        epochs: of it; 0 leaves it out.
        lr: peak learning rate.
        label_smoothing: 0 for hard labels.
    """

    epochs: Epochs = 30
    lr: Rate = 1e-3
    label_smoothing: Below1 = 0.0


class ToFeTable(Table):
    """The second phase: selectors and approximators with the backbone, and the dense backbone as the teacher.

    Attributes:
        epochs: of it.
        lr: peak learning rate of approximators.
        selector_lr_scale, backbone_lr_scale: the selectors' and the backbone's shares of it.
        budget: MACs as a share of the dense backbone's, 0 < budget < 1.
        initial_keep: probability with which fresh selectors keep a token.
        ramp: first share of the phase, over which the cost falls from there to `budget`.
        temperature_start, temperature_end: of the Gumbel softmax, geometric in between.
        quiet_share: last share of the phase without Gumbel noise, so that it ends on the threshold path.
        count_rate: at which stages come to keep more tokens where these are worth more, in log-odds a step and unit of
            the price; with 0 they keep equal shares, falling ones where frozen tokens are discarded. See
            `training.steering.Steering`.
        label_smoothing: 0 for hard labels.
    """

    epochs: SomeEpochs = 30
    lr: Rate = 1e-3
    selector_lr_scale: Weight = 1.0
    backbone_lr_scale: Weight = 0.05
    budget: Inside = 0.5
    initial_keep: Inside = 0.9
    ramp: Share = 0.3
    temperature_start: Temperature = 1.0
    temperature_end: Temperature = 0.3
    quiet_share: Below1 = 0.2
    count_rate: Share = 0.0
    label_smoothing: Below1 = 0.0


class LossWeights(Table):
    """What each part of the second phase's loss counts in the sum.

    Attributes:
        classification: cross-entropy with the labels.
        distillation: divergence from the dense teacher's logits.
        approximation: error of the estimated frozen tokens.
        budget: squared distance of the MACs ratio from its target.
        spread: variance over images of the share that a stage keeps. Without it selectors learn to freeze whole images,
            those that are easy at the time.
    """

    classification: Weight = 1.0
    distillation: Weight = 0.5
    approximation: Weight = 0.5
    budget: Weight = 10.0
    spread: Weight = 20.0


class RunTable(Table):
    """How the steps are made.

    Attributes:
        batch_size: images a step, over all processes and parts of it.
        accumulate: parts in which each process makes its share of a step, one after the other, to save memory.
        precision: of the products: "auto" is bf16 on a GPU that has it and fp32 elsewhere.
        ema_decay: of the moving average of the weights that is evaluated and saved; 0 for none.
        checkpointing: compute the blocks again for their gradients instead of keeping what they computed.
        compile: by torch.compile.
        channels_last: memory format of the patch embedding.
        shard: divide weights, gradients and the optimizer's state among the processes (FSDP2), for backbones that do
            not fit one GPU.
        seed: of everything random.
        limit_batches: at most N steps an epoch; None for all.
        limit_val: at most N held-out images, and N to set thresholds on; None for all.
    """

    batch_size: Batch = 128
    accumulate: Annotated[int, Field(strict=True, ge=1, le=LARGEST_BATCH)] = 1
    precision: Precision = "auto"
    ema_decay: Below1 = 0.0
    checkpointing: Flag = False
    compile: Flag = False
    channels_last: Flag = False
    shard: Flag = False
    seed: Annotated[int, Field(strict=True, ge=0, le=LARGEST_SEED)] = 0
    limit_batches: Limit = None
    limit_val: Limit = None

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate is {self.accumulate}, but it should divide batch_size, {self.batch_size}")
        if self.shard and self.ema_decay:
            raise ValueError("ema_decay is not 0, but with shard there is no moving average")
        return self


class TrainingRecipe(Table):
    """A whole recipe. `name` is the file's, without `.toml`."""

    name: Text
    network: NetworkTable = NetworkTable()
    images: ImagesTable = ImagesTable()
    optimizer: OptimizerTable = OptimizerTable()
    dense: DenseTable = DenseTable()
    tofe: ToFeTable = ToFeTable()
    loss: LossWeights = LossWeights()
    run: RunTable = RunTable()

    def changed(self, **tables: dict[str, Any]) -> Self:
        """A checked copy with other values in some of its tables: `changed(tofe={"budget": 0.7})`."""
        plain = self.model_dump()
        return type(self).model_validate({**plain, **{name: {**plain[name], **new} for name, new in tables.items()}})

    def steps_per_epoch(self, images: int) -> int:
        """Steps of an epoch over `images` images: whole batches, at least one."""
        whole = max(1, images // self.run.batch_size)
        return whole if self.run.limit_batches is None else min(whole, self.run.limit_batches)
