"""The reference cases as files, such as their authors publish, and the logits that belong to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tests.references.weights import Case, make_images, make_weights

_FIELDS = ("name", "method", "backbone", "weights_seed", "images_seed", "images", "image_size", "rate", "fuse")
_DOCUMENT: dict[str, Any] = json.loads((Path(__file__).parent / "logits.json").read_text(encoding="utf-8"))
ENTRIES: dict[str, dict[str, Any]] = {entry["name"]: entry for entry in _DOCUMENT["cases"]}


def case_of(name: str) -> Case:
    """The case called `name`."""
    return Case(**{field: ENTRIES[name][field] for field in _FIELDS})


def state_dict(name: str) -> dict[str, torch.Tensor]:
    """Its weights under their published names, float32."""
    weights = {key: torch.from_numpy(value) for key, value in make_weights(case_of(name)).items()}
    return {key: value.float() if value.is_floating_point() else value for key, value in weights.items()}


def images(name: str) -> torch.Tensor:
    """Its images, float32 [B, 3, H, W]."""
    case = case_of(name)
    made = make_images(case.images_seed, case.images, case.image_size, case.image_size)
    return torch.from_numpy(made).float()


def logits(name: str) -> torch.Tensor:
    """What the independent implementation says, float64 [B, classes]."""
    return torch.tensor(ENTRIES[name]["logits"], dtype=torch.float64)
