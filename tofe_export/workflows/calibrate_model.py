"""From a recipe to calibrated ranges: which recipe, which images, which cache."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from tofe_export.artifacts.commands import command
from tofe_export.artifacts.files import sha256
from tofe_export.artifacts.names import expanded
from tofe_export.artifacts.outputs import require_folder
from tofe_export.artifacts.places import is_there
from tofe_export.data.image_log import ImageLog
from tofe_export.data.images import Batch, ImageSource, batches
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.data.sources import BUILT_IN, is_ambiguous, open_source
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
        cache: calibration file to read and write; None takes one in the user's cache folder, if that can be
            written.
    """

    recipe: str | None = None
    data: str | None = None
    cache: Path | None = None


@dataclass(frozen=True)
class Calibrated:
    """A model's histograms, where they come from, and the images that were read and left out."""

    recipe: Recipe
    key: CalibrationKey
    histograms: dict[str, Histogram]
    images: ImageLog

    def quantize(self, model: ir.Model, precision: str, engine: bool) -> tuple[Quantized, str]:
        """A quantized copy of `model`, and the precision around its 8-bit layers; see `quantize`.

        Args:
            model: the model that was calibrated.
            precision: "int8" or "fp8".
            engine: it becomes an engine, where "auto" means fp16 around; in an ONNX file it means fp32.
        """
        policy = self.recipe.quantize
        if engine:  # a GPU adds in 32 bits
            policy = replace(policy, reduce_range=False)
        made = quantize(model, ranges_of(self.histograms, self.recipe), policy, precision)
        around = self.recipe.quantize.around
        if around == "auto":
            around = "fp16" if engine else "fp32"
        if around == "fp16":
            to_half(made.model, "fp16")
        return made, around

    def to_dict(self) -> dict[str, Any]:
        """For the manifest: the recipe, and what the ranges belong to."""
        return {"recipe": self.recipe.to_dict(), **self.key.to_dict()}


def first_step(source: Path) -> str:
    """What to type where a file that is no ONNX file was given: a checkpoint can become one."""
    if source.suffix in (".pth", ".pt", ".bin", ".safetensors"):
        return f"First type: {command('onnx', source)}"
    return "Name the file that tofe-export onnx wrote."


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
    if source not in BUILT_IN and not is_there(expanded(source)):
        raise InputError(
            f"The recipe {recipe.name} takes images that are not here: its data.source is {source!r}.", next_step
        )


def calibrate_model(
    source: Path,
    model: ir.Model,
    manifest: Mapping[str, Any],
    options: CalibrationOptions,
    report: Report = silent,
    log: ImageLog | None = None,
) -> Calibrated:
    """Calibrates an exported float32 model.

    Args:
        source: the ONNX file.
        model: its content; not changed.
        manifest: its manifest.
        options: see there.
        report: progress.
        log: told which images were read and which were left out; None makes one.

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
    log = ImageLog() if log is None else log
    recipe = choose_recipe(options, manifest)
    data = recipe.data
    if options.data is None:
        require_images_of(recipe, "Add --data FOLDER.")
    images = open_source(data.source, "train", data.seed)
    if is_ambiguous(data.source):
        log.note(f"{data.source} in the recipe is the bundled set; for the folder of that name write ./{data.source}.")
    preprocessing = Preprocessing.from_dict(manifest["preprocessing"])

    def stream() -> Iterator[Batch]:
        return batches(images, preprocessing, _BATCH, limit=data.samples, seed=data.seed, log=log)

    steps = -(-min(len(images), data.samples) // _BATCH)
    hashed = hash_images(tracked(stream(), "Reading calibration images", steps, report))
    key = CalibrationKey(sha256(source), preprocessing.digest(), hashed)
    loop = tracked(stream(), f"Calibrating on {_count(images, data.samples)} images of {data.source}", steps, report)
    folder = None if options.cache else cache_folder()
    own = None if folder is None else folder / f"{key.digest()[:32]}.npz"
    histograms = calibrate(model, loop, key, options.cache or own, asked_for=options.cache is not None)
    return Calibrated(recipe, key, histograms, log)


def _count(images: ImageSource, samples: int) -> int:
    return min(len(images), samples)


def cache_folder() -> Path | None:
    """Where calibrations are kept that name no file; None where that cannot be written."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(home) if Path(home).is_absolute() else expanded("~/.cache")  # others are void, says the XDG standard
    folder = base / "tofe-export" / "calibration"
    if not folder.is_absolute():  # no home
        return None
    try:
        require_folder(folder)
    except (InputError, OSError):
        return None
    return folder


def without_cache(options: CalibrationOptions) -> list[str]:
    """A sentence where a calibration will not be kept, though nobody said so."""
    if options.cache is not None or cache_folder() is not None:
        return []
    return ["Note: your cache folder cannot be written, so the calibration is not kept; --cache FILE keeps it."]


def files_read(options: CalibrationOptions) -> list[Path]:
    """Files that the options name for reading."""
    return [expanded(options.recipe)] if options.recipe else []
