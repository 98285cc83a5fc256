"""How an image becomes a model's input: one object, which is part of checkpoints, manifests and calibration keys."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import ValidationError
from timm.data import create_transform, resolve_data_config
from timm.data.auto_augment import AugmentOp, RandAugment
from torch import Tensor, nn

from tofe_export.documents.base import first_problem
from tofe_export.documents.manifest import CropMode, InputImages
from tofe_export.documents.training_recipe import ImagesTable
from tofe_export.errors import InputError, brief

INTERPOLATIONS = ("bicubic", "bilinear", "nearest")
CENTER: CropMode = "center"
_LARGEST = float(np.finfo(np.float32).max)
_CORRECT = "Export or train the model again, or correct the file that says it."


@dataclass(frozen=True)
class Preprocessing:
    """Resize and crop, scale to 0..1, subtract `mean`, divide by `std`.

    Attributes:
        height, width: of the model's input, in pixels.
        mean, std: per RGB channel, in units of 0..1 pixel values.
        interpolation: `bicubic`, `bilinear` or `nearest`.
        crop_pct: share of the resized image's side that the crop keeps, 0 < crop_pct <= 1.
        crop_mode: which side becomes as long as the input's, as in timm: "center", the shorter one, and the center is
            cropped; "squash", both, whatever that does to the proportions; "border", the longer one, and a border in
            the color of `mean` is added.

    Raises:
        InputError: a value that makes no sense.
    """

    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    crop_mode: CropMode = CENTER

    draws_random_numbers = False

    def __post_init__(self) -> None:
        given = vars(self).copy()
        for name in ("mean", "std"):
            _require(isinstance(given[name], (list, tuple)), f"{name} is {brief(given[name])}, not three numbers")
        try:
            checked = InputImages.model_validate(given)
        except ValidationError as error:
            place, reason = first_problem(error)
            name = place.partition(".")[0]
            raise _refusal(f"{name} is {brief(given[name])}, but {reason}") from None
        for name in ("mean", "std"):  # images are normalized in float32
            _require(max(map(abs, given[name])) <= _LARGEST, f"{name} is {brief(given[name])}, too large for float32")
        known = f"one of {', '.join(INTERPOLATIONS)}"
        _require(self.interpolation in INTERPOLATIONS, f"interpolation is {brief(self.interpolation)}, not {known}")
        vars(self).update(dict(checked))  # lists became tuples and whole numbers floats, so equal ones have one hash

    @classmethod
    def of_backbone(cls, vit: nn.Module, told: Mapping[str, Any] | None = None) -> Preprocessing:
        """That of `vit` in timm: its pretrained configuration, with its own image size.

        `told` are the values of timm's configuration (`mean`, `std`, `interpolation`, `crop_pct`, `crop_mode`) that
        differ; InputError where one makes no sense.
        """
        for name in ("mean", "std"):  # one number stands for three
            values = (told or {}).get(name, ())
            _require(isinstance(values, (list, tuple)), f"{name} is {brief(values)}, not three numbers")
            _require(len(values) in (0, 1, 3), f"{name} is {brief(values)}, not three numbers")
        given = (told or {}).get("interpolation", INTERPOLATIONS[0])
        _require(given in INTERPOLATIONS, f"interpolation is {brief(given)}, not one of {', '.join(INTERPOLATIONS)}")
        config = resolve_data_config(told, model=vit)
        # The configuration is the pretrained one; a backbone made with another img_size has that instead.
        own = getattr(getattr(vit, "patch_embed", None), "img_size", None)
        height, width = own or config["input_size"][1:]
        interpolation = config["interpolation"] if config["interpolation"] in INTERPOLATIONS else "bicubic"
        return cls(height, width, config["mean"], config["std"], interpolation, config["crop_pct"], config["crop_mode"])

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
        document = {"crop_mode": CENTER, **document}  # older checkpoints know no other
        wrong = sorted(set(map(str, document)) ^ known)
        if wrong:
            kind = "lacks" if wrong[0] in known else "has the unknown key"
            raise InputError(
                f"The preprocessing {kind} {wrong[0]!r}.",
                f"It requires: {', '.join(sorted(known))}.",
                code="preprocessing-keys",
                name=wrong[0],
            )
        return cls(**document)

    @classmethod
    def of(cls, document: InputImages) -> Preprocessing:
        """What a manifest says; InputError for a value that cannot be used."""
        return cls(**dict(document))

    def document(self) -> InputImages:
        """For manifests; the inverse of `of`."""
        return InputImages(**vars(self))

    def digest(self) -> str:
        """SHA-256, hexadecimal, of the canonical JSON: equal exactly when two models see the same input.

        The usual crop mode is not part of it, so that what was written before there were others keeps its digest.
        """
        told = {name: value for name, value in self.to_dict().items() if (name, value) != ("crop_mode", CENTER)}
        canonical = json.dumps(told, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def __call__(self, image: Image.Image) -> Tensor:
        """A PIL image of any size and mode to float32 [3, height, width], for evaluation."""
        if image.size == (self.width, self.height) and self.crop_pct == 1 and image.mode == "RGB":
            return self._normalised(image)
        return _transformed(self, None, image)

    def _normalised(self, image: Image.Image) -> Tensor:
        """As timm's transform does to an image of the right size, in a tenth of its time."""
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().to(torch.float32).div_(255)
        mean, std = torch.tensor(self.mean).view(3, 1, 1), torch.tensor(self.std).view(3, 1, 1)
        return pixels.sub_(mean).div_(std)

    def train_transform(self, augmentation: ImagesTable | None) -> Callable[[Image.Image], Tensor]:
        """timm's for training, with random numbers from the global generators.

        Without `augmentation` (digits: their source augments already) it is evaluation's.

        Raises:
            InputError: timm does not know the policy of augmentation.
        """
        if augmentation is None:
            return self
        try:
            timm_transform(self, augmentation)
        except (AssertionError, ValueError, KeyError, IndexError, TypeError) as error:
            raise InputError(
                f"timm has no augmentation called {augmentation.auto_augment!r}.",
                'Write a policy like "rand-m9-mstd0.5-inc1", or "" for none.',
                code="unknown-augmentation",
                name=augmentation.auto_augment,
            ) from error
        return functools.partial(_transformed, self, augmentation)


def _transformed(preprocessing: Preprocessing, augmentation: ImagesTable | None, image: Image.Image) -> Tensor:
    tensor: Tensor = timm_transform(preprocessing, augmentation)(image.convert("RGB"))
    return tensor.to(torch.float32)


@functools.lru_cache(maxsize=8)
def timm_transform(preprocessing: Preprocessing, augmentation: ImagesTable | None) -> Any:
    """timm's own for evaluation, or for training with `augmentation`: a PIL RGB image to a tensor."""
    shared = {
        "input_size": (3, preprocessing.height, preprocessing.width),
        "interpolation": preprocessing.interpolation,
        "mean": preprocessing.mean,
        "std": preprocessing.std,
    }
    if augmentation is None:
        return create_transform(**shared, crop_pct=preprocessing.crop_pct, crop_mode=preprocessing.crop_mode)
    transform = create_transform(
        **shared,
        is_training=True,
        scale=augmentation.scale,
        hflip=augmentation.flip,
        color_jitter=augmentation.color_jitter or None,
        auto_augment=augmentation.auto_augment or None,
        re_prob=augmentation.erasing,
        re_mode="pixel",
    )
    for op in augmenting_ops(transform):
        if op.name.startswith("Posterize"):
            op.level_fn = functools.partial(_at_least_one_bit, op.level_fn)
    return transform


def augmenting_ops(transform: Any) -> list[AugmentOp]:
    """What RandAugment of `transform`, one of timm's, chooses from; evaluation's has none."""
    return [op for step in transform.transforms if isinstance(step, RandAugment) for op in step.ops]


def _at_least_one_bit(bits_of: Callable[[float, Mapping[str, Any]], tuple[int]], *magnitude: Any) -> tuple[int]:
    """timm's strongest Posterize keeps 0 bits: Pillow 13 refuses that, and older ones return a black image."""
    (bits,) = bits_of(*magnitude)
    return (max(1, bits),)


def _refusal(complaint: str) -> InputError:
    return InputError(f"The preprocessing cannot be used: {complaint}.", _CORRECT, code="preprocessing")


def _require(holds: bool, complaint: str) -> None:
    if not holds:
        raise _refusal(complaint)
