"""The tuned settings of the demo. Nothing tuned hides elsewhere."""

from __future__ import annotations

from tofe_export.model.config import ToFeConfig
from tofe_export.training.losses import LossWeights
from tofe_export.training.settings import TrainSettings

SETTINGS = TrainSettings(
    data="digits",
    dense_epochs=20,
    epochs=8,
    batch_size=32,
    dense_lr=2e-3,
    lr=1e-3,
    backbone_lr_scale=0.5,
    warmup_epochs=1.0,
    budget=0.5,
    quiet_share=0.4,
    positions="sincos",
    device="cpu",
    loss=LossWeights(classification=1.0, distillation=0.5, approximation=0.05, budget=100.0, label_smoothing=0.05),
)
CONFIG = ToFeConfig(
    backbone="vit_tiny_patch16_224",
    # moco's initialization scales with the width; timm's default is meant for wide networks and stalls here.
    backbone_args={
        "img_size": 56,
        "patch_size": 7,
        "embed_dim": 96,
        "depth": 4,
        "num_heads": 3,
        "num_classes": 10,
        "weight_init": "moco",
    },
    # A selector is extra work, and on a network of this width the mlp kind costs a good part of what freezing saves.
    selector="linear",
)
