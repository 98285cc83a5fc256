"""From a recipe to calibrated ranges: which recipe, which images, which cache."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from tofe_export.artifacts.files import sha256
from tofe_export.data.images import Batch, CorruptLog, ImageSource, batches
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.data.sources import BUILT_IN, open_source
from tofe_export.errors import InputError
from tofe_export.precision.calibration import CalibrationKey, calibrate, hash_images
from tofe_export.precision.half import to_half
from tofe_export.precision.histogram import Histogram
from tofe_export.precision.quantize import FORMATS, Quantized, is_quantized, quantize, ranges_of
from tofe_export.precision.recipe import Recipe, read_recipe, shipped
from tofe_export.workflows.progress import Report, silent, tracked

_BATCH = 4


@dataclass(frozen=True)
class CalibrationOptions:
    """How a model is calibrated.

    Attributes:
        recipe: a file, or the name of a shipped one; None takes the one named after the model's training data.
        data: images instead of the recipe's.
        cache: calibration file to read and write; None takes one in the user's cache folder.
    """

    recipe: str | None = None
    data: str | None = None
    cache: Path | None = None


@dataclass(frozen=True)
class Calibrated:
    """A model's histograms, and where they come from."""

    recipe: Recipe
    key: CalibrationKey
    histograms: dict[str, Histogram]
    skipped: list[str]

    def quantize(self, model: ir.Model, precision: str, engine: bool) -> tuple[Quantized, str]:
        """A quantized copy of `model`, and the precision around its 8-bit layers; see `quantize`.

        Args:
            model: the model that was calibrated.
            precision: "int8" or "fp8".
            engine: it becomes an engine, where "auto" means fp16 around; in an ONNX file it means fp32.
        """
        made = quantize(model, ranges_of(self.histograms, self.recipe), self.recipe.quantize, precision)
        around = self.recipe.quantize.around
        if around == "auto":
            around = "fp16" if engine else "fp32"
        if around == "fp16":
            to_half(made.model, "fp16")
        return made, around

    def to_dict(self) -> dict[str, Any]:
        """For the manifest: the recipe, and what the ranges belong to."""
        return {"recipe": self.recipe.to_dict(), **self.key.to_dict()}


def choose_recipe(options: CalibrationOptions, manifest: Mapping[str, Any]) -> Recipe:
    """The recipe to follow, with the user's own images put in.

    Raises:
        InputError: see `read_recipe`; or none was named and none fits.
    """
    name = options.recipe
    if name is None:
        name = manifest.get("data", "")
        if name not in shipped():
            raise InputError(
                "No recipe was given, and none is named after what the model was trained on.",
                f"Add --recipe FILE.toml, or one of: {', '.join(shipped())}; --data FOLDER names your images.",
            )
    recipe = read_recipe(name)
    return recipe if options.data is None else replace(recipe, data=replace(recipe.data, source=options.data))


def require_images_of(recipe: Recipe, next_step: str) -> None:
    """Raises InputError where the recipe names images that are not here: the user has not typed their name."""
    source = recipe.data.source
    if source not in BUILT_IN and not Path(source).expanduser().exists():
        raise InputError(
            f"The recipe {recipe.name} takes images that are not here: its data.source is {source!r}.", next_step
        )


def calibrate_model(
    source: Path, model: ir.Model, manifest: Mapping[str, Any], options: CalibrationOptions, report: Report = silent
) -> Calibrated:
    """Calibrates an exported float32 model.

    Args:
        source: the ONNX file.
        model: its content; not changed.
        manifest: its manifest.
        options: see there.
        report: progress.

    Raises:
        InputError: the model is not in float32, or see `choose_recipe`, `open_source`, `calibrate`.
    """
    if is_quantized(model) or manifest["precision"] in FORMATS:
        raise InputError(f"{source} is quantized already.", "Start from the file that tofe-export onnx wrote.")
    if manifest["precision"] != "fp32":
        raise InputError(
            f"{source} is in {manifest['precision']}; only a float32 model can be calibrated.",
            "Start from the file that tofe-export onnx wrote.",
        )
    recipe = choose_recipe(options, manifest)
    data = recipe.data
    if options.data is None:
        require_images_of(recipe, "Add --data FOLDER.")
    images = open_source(data.source, "train", data.seed)
    preprocessing = Preprocessing.from_dict(manifest["preprocessing"])
    corrupt = CorruptLog()

    def stream() -> Iterator[Batch]:
        return batches(images, preprocessing, _BATCH, limit=data.samples, seed=data.seed, on_corrupt=corrupt)

    steps = -(-min(len(images), data.samples) // _BATCH)
    hashed = hash_images(tracked(stream(), "Reading calibration images", steps, report))
    key = CalibrationKey(sha256(source), preprocessing.digest(), hashed)
    loop = tracked(stream(), f"Calibrating on {_count(images, data.samples)} images of {data.source}", steps, report)
    histograms = calibrate(model, loop, key, options.cache or _cached(key))
    return Calibrated(recipe, key, histograms, corrupt.lines())


def _count(images: ImageSource, samples: int) -> int:
    return min(len(images), samples)


def _cached(key: CalibrationKey) -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "tofe-export" / "calibration" / f"{key.digest()[:32]}.npz"
