"""How an image becomes a model's input: one object, which is part of checkpoints, manifests and calibration keys."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from timm.data.auto_augment import AugmentOp, RandAugment
from torch import Tensor, nn

from tofe_export.bounds import LARGEST_SIDE
from tofe_export.documents.manifest import InputImages
from tofe_export.errors import InputError, brief

INTERPOLATIONS = ("bicubic", "bilinear", "nearest")
_LARGEST = float(np.finfo(np.float32).max)
_CORRECT = "Export or train the model again, or correct the file that says it."


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side by `crop_pct`, crop the center, scale to 0..1, subtract `mean`, divide by `std`.

    Attributes:
        height, width: of the model's input, in pixels.
        mean, std: per RGB channel, in units of 0..1 pixel values.
        interpolation: `bicubic`, `bilinear` or `nearest`.
        crop_pct: share of the resized image's side that the crop keeps, 0 < crop_pct <= 1.

    Raises:
        InputError: a value that makes no sense.
    """

    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    crop_pct: float = 1.0

    draws_random_numbers = False

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            size = getattr(self, name)
            _require(_is_whole(size) and size > 0, f"{name} is {brief(size)}, not a positive whole number of pixels")
            _require(size <= LARGEST_SIDE, f"{name} is more than {LARGEST_SIDE} pixels")
        for name in ("mean", "std"):
            values = getattr(self, name)
            fits = isinstance(values, tuple) and len(values) == 3 and all(_is_number(value) for value in values)
            _require(fits, f"{name} is {brief(values)}, not three numbers")
        _require(all(value > 0 for value in self.std), f"std is {brief(self.std)}, but it divides, so each must be > 0")
        _require(
            self.interpolation in INTERPOLATIONS,
            f"interpolation is {brief(self.interpolation)}, not one of {', '.join(INTERPOLATIONS)}",
        )
        _require(
            _is_number(self.crop_pct) and 0 < self.crop_pct <= 1, f"crop_pct is {brief(self.crop_pct)}, not in 0..1"
        )

    @classmethod
    def of_backbone(cls, vit: nn.Module) -> Preprocessing:
        """That of `vit` in timm: its pretrained configuration, with its own image size."""
        config = resolve_model_data_config(vit)
        # The configuration is the pretrained one; a backbone made with another img_size has that instead.
        own = getattr(getattr(vit, "patch_embed", None), "img_size", None)
        height, width = own or config["input_size"][1:]
        interpolation = config["interpolation"] if config["interpolation"] in INTERPOLATIONS else "bicubic"
        return cls(
            int(height),
            int(width),
            _three(config["mean"]),
            _three(config["std"]),
            interpolation,
            float(config["crop_pct"]),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, for JSON and for `torch.load(weights_only=True)`."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `to_dict`.

        Raises:
            InputError: a key is unknown or missing, or a value is invalid.
        """
        _require(isinstance(document, Mapping), "it is not a mapping of names to values")
        known = set(cls.__dataclass_fields__)
        wrong = sorted(set(map(str, document)) ^ known)
        if wrong:
            kind = "lacks" if wrong[0] in known else "has the unknown key"
            raise InputError(
                f"The preprocessing {kind} {wrong[0]!r}.",
                f"It requires: {', '.join(sorted(known))}.",
                code="preprocessing-keys",
                name=wrong[0],
            )
        values = dict(document)
        for name in ("mean", "std"):
            _require(isinstance(values[name], (list, tuple)), f"{name} is {brief(values[name])}, not three numbers")
            values[name] = tuple(values[name])
        return cls(**values)

    @classmethod
    def of(cls, document: InputImages) -> Preprocessing:
        """What a manifest says.

        Raises:
            InputError: a value that cannot be used.
        """
        return cls.from_dict(document.to_dict())

    def document(self) -> InputImages:
        """For manifests; the inverse of `of`."""
        return InputImages.model_validate(self.to_dict())

    def digest(self) -> str:
        """SHA-256, hexadecimal, of the canonical JSON: equal exactly when two models see the same input."""
        numbers = {
            **self.to_dict(),
            "mean": [float(value) for value in self.mean],
            "std": [float(value) for value in self.std],
            "crop_pct": float(self.crop_pct),
        }
        return hashlib.sha256(json.dumps(numbers, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def __call__(self, image: Image.Image) -> Tensor:
        """A PIL image of any size and mode to float32 [3, height, width], for evaluation."""
        if image.size == (self.width, self.height) and self.crop_pct == 1 and image.mode == "RGB":
            return self._normalised(image)
        return _run(_evaluation(self), image)

    def _normalised(self, image: Image.Image) -> Tensor:
        """As timm's transform does to an image of the right size, in a tenth of its time."""
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().to(torch.float32).div_(255)
        mean, std = torch.tensor(self.mean).view(3, 1, 1), torch.tensor(self.std).view(3, 1, 1)
        return pixels.sub_(mean).div_(std)

    def train_transform(self, augment: bool = True) -> Callable[[Image.Image], Tensor]:
        """timm's training augmentation; without `augment` (digits: their source augments already), evaluation's."""
        return Augmentation(self) if augment else self


@dataclass(frozen=True)
class Augmentation:
    """Random resized crop, flip, RandAugment and erasing, as timm trains DeiT. Draws from the global generators."""

    preprocessing: Preprocessing

    draws_random_numbers = True

    def __call__(self, image: Image.Image) -> Tensor:
        """A PIL image to float32 [3, height, width]."""
        return _run(_augmentation(self.preprocessing), image)


def _run(transform: Callable[[Image.Image], Tensor], image: Image.Image) -> Tensor:
    return transform(image if image.mode == "RGB" else image.convert("RGB")).to(torch.float32)


@functools.lru_cache(maxsize=8)
def _evaluation(preprocessing: Preprocessing) -> Callable[[Image.Image], Tensor]:
    transform: Callable[[Image.Image], Tensor] = create_transform(
        input_size=(3, preprocessing.height, preprocessing.width),
        is_training=False,
        interpolation=preprocessing.interpolation,
        mean=preprocessing.mean,
        std=preprocessing.std,
        crop_pct=preprocessing.crop_pct,
    )
    return transform


@functools.lru_cache(maxsize=8)
def _augmentation(preprocessing: Preprocessing) -> Callable[[Image.Image], Tensor]:
    transform = create_transform(
        input_size=(3, preprocessing.height, preprocessing.width),
        is_training=True,
        interpolation=preprocessing.interpolation,
        mean=preprocessing.mean,
        std=preprocessing.std,
        auto_augment="rand-m9-mstd0.5-inc1",
        re_prob=0.25,
        re_mode="pixel",
    )
    for op in augmenting_ops(transform):
        if op.name.startswith("Posterize"):
            op.level_fn = functools.partial(_at_least_one_bit, op.level_fn)
    whole: Callable[[Image.Image], Tensor] = transform
    return whole


def augmenting_ops(transform: Any) -> list[AugmentOp]:
    """What RandAugment of `transform`, one of timm's training transforms, chooses from."""
    (policy,) = [step for step in transform.transforms if isinstance(step, RandAugment)]
    return list(policy.ops)


def _at_least_one_bit(bits_of: Callable[[float, Mapping[str, Any]], tuple[int]], *magnitude: Any) -> tuple[int]:
    """timm's strongest Posterize keeps 0 bits: Pillow 13 refuses that, and older ones return a black image."""
    (bits,) = bits_of(*magnitude)
    return (max(1, bits),)


def _require(holds: bool, complaint: str) -> None:
    if not holds:
        raise InputError(f"The preprocessing cannot be used: {complaint}.", _CORRECT, code="preprocessing")


def _is_number(value: object) -> bool:
    """Whether it is a real one that float32 can hold: images are normalized in that."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return float(red), float(green), float(blue)
