"""Small networks saved as their authors would save them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.helpers import SMALL, small_tofe
from tofe_export.model.config import ToFeConfig
from tofe_export.model.tofe import ToFe, build_tofe

SELECTOR_KEYS = {
    "embed.0": "in_conv.0",
    "embed.1": "in_conv.1",
    "mix": "out_conv.0",
    "mlp.1": "out_conv.2",
    "out": "out_conv.4",
}
HINTED = {name: value for name, value in SMALL.items() if name != "num_classes"}
"""What no shape of so small a network tells."""


def dynamicvit_weights(model: ToFe) -> dict[str, torch.Tensor]:
    """The weights of a network with `discard` under DynamicViT's names."""
    published = {}
    for key, value in model.state_dict().items():
        if key.startswith("vit."):
            published[key.removeprefix("vit.")] = value
            continue
        _, stage, _, rest = key.split(".", 3)
        part, kind = rest.rsplit(".", 1)
        published[f"score_predictor.{stage}.{SELECTOR_KEYS[part]}.{kind}"] = value
    return published


def dynamicvit(path: Path, backbone: str = "deit_tiny_patch16_224", **beside: Any) -> ToFe:
    """Writes a DynamicViT checkpoint and returns the network in it."""
    model = small_tofe(backbone, approximator="discard")
    torch.save({"model": dynamicvit_weights(model), **beside}, path)
    return model


def plain(path: Path, backbone: str = "deit_tiny_patch16_224", **beside: Any) -> ToFe:
    """Writes a plain backbone's checkpoint and returns the network without stages."""
    torch.manual_seed(0)
    model = build_tofe(ToFeConfig(backbone, SMALL, selector="none")).eval()
    torch.save({"model": model.vit.state_dict(), **beside}, path)
    return model
