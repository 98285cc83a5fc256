"""From a recipe to calibrated ranges: which recipe, which images, which cache."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from tofe_export.data.image_log import ImageLog
from tofe_export.data.images import Batch, batches
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.data.sources import BUILT_IN, is_ambiguous, open_source
from tofe_export.documents.manifest import Calibration, Manifest
from tofe_export.documents.recipe import CalibrationRecipe
from tofe_export.errors import InputError
from tofe_export.files.names import calibration_recipes, expanded, readable
from tofe_export.files.places import is_there
from tofe_export.precision.calibration import CalibrationKey, calibrate, hash_images
from tofe_export.precision.half import FROM_FLOAT32, to_half
from tofe_export.precision.histogram import Histogram
from tofe_export.precision.quantize import FORMATS, QuantizedGraph, is_quantized, quantize_graph, ranges_of
from tofe_export.precision.recipe import read_recipe
from tofe_export.progress import Progress, silent, tracked

_BATCH = 4
Around = Literal["fp16", "fp32"]


@dataclass(frozen=True)
class Calibrated:
    """A model's histograms, and what they belong to."""

    recipe: CalibrationRecipe
    key: CalibrationKey
    histograms: dict[str, Histogram]

    def quantized(self, model: ir.Model, precision: str, engine: bool) -> tuple[QuantizedGraph, Around]:
        """A quantized copy of the calibrated model, and the precision around its 8-bit layers; see `quantize_graph`.

        "auto" means fp16 around in an `engine`, and fp32 in an ONNX file.
        """
        policy = self.recipe.quantize
        around: Around = policy.around if policy.around != "auto" else "fp16" if engine else "fp32"
        if engine:  # a GPU adds in 32 bits
            policy = policy.replaced(reduce_range=False)
        quantized = quantize_graph(model, ranges_of(self.histograms, self.recipe.ranges), policy, precision)
        if around == "fp16":
            to_half(quantized.model, "fp16")
        return quantized, around

    def document(self) -> Calibration:
        """For the manifest: the recipe, and what the ranges belong to."""
        return Calibration(recipe=readable_recipe(self.recipe), **self.key.to_dict())


def readable_recipe(recipe: CalibrationRecipe) -> CalibrationRecipe:
    """The recipe as documents hold it: the name of its images as text that UTF-8 can hold."""
    return recipe.replaced(data=recipe.data.replaced(source=readable(recipe.data.source)))


def choose_recipe(
    recipe: CalibrationRecipe | Path | str | None, data: str | Path | None, trained_on: str
) -> CalibrationRecipe:
    """The recipe to follow, with the user's own images put in.

    Args:
        recipe: a recipe, a file, or the name of a shipped one; None takes the one named after `trained_on`.
        data: images instead of the recipe's.
        trained_on: what the model was trained on, as its manifest says.

    Raises:
        InputError: see `read_recipe`; or none was named and none fits, or its images are not here.
    """
    if recipe is None:
        if trained_on not in calibration_recipes():
            raise InputError(
                "`recipe` was not given, and none is named after what the model was trained on.",
                f"Give a file as `recipe`, or one of: {', '.join(calibration_recipes())}; `data` names your images.",
                code="recipe-missing",
            )
        recipe = trained_on
    chosen = read_recipe(recipe)
    if data is not None:
        return chosen.replaced(data=chosen.data.replaced(source=str(data)))
    require_images_of(chosen, "data")
    return chosen


def require_images_of(recipe: CalibrationRecipe, argument: str) -> None:
    """Raises InputError where the images that a recipe names are not here; `argument` would name others."""
    source = recipe.data.source
    if source not in BUILT_IN and not is_there(expanded(source)):
        raise InputError(
            f"The recipe {recipe.name} takes images that are not here: its data.source is {source!r}.",
            f"Add `{argument}=FOLDER`.",
            code="recipe-images-missing",
            source=source,
            argument=argument,
        )


def require_float32(model: ir.Model, precision: str, name: str) -> None:
    """Raises InputError unless a model can be calibrated: its graph and its manifest's `precision` are float32."""
    if is_quantized(model) or precision in FORMATS:
        raise InputError(f"{name} is quantized already.", FROM_FLOAT32, code="already-quantized", name=name)
    if precision != "fp32":
        raise InputError(
            f"{name} is in {precision}; only a float32 model can be calibrated.",
            FROM_FLOAT32,
            code="not-float32",
            name=name,
            precision=precision,
        )


def calibrate_model(
    model: ir.Model,
    manifest: Manifest,
    recipe: CalibrationRecipe,
    log: ImageLog,
    cache: Path | None = None,
    progress: Progress = silent,
) -> Calibrated:
    """Calibrates an exported float32 model, which is not changed.

    Args:
        model: the graph.
        manifest: of its file.
        recipe: from `choose_recipe`.
        log: told which images were read and which were left out.
        cache: calibration file to read and write; None takes one in the user's cache folder, if that can be written.
        progress: called during both passes over the images.

    Raises:
        InputError: see `open_source` and `calibrate`.
    """
    data = recipe.data
    images = open_source(data.source, "train", data.seed)
    if is_ambiguous(data.source):
        log.note(f"{data.source} in the recipe is the bundled set; for the folder of that name write ./{data.source}.")
    preprocessing = Preprocessing.of(manifest.preprocessing)

    def stream() -> Iterator[Batch]:
        return batches(images, preprocessing, _BATCH, limit=data.samples, seed=data.seed, log=log)

    count = min(len(images), data.samples)
    steps = -(-count // _BATCH)
    hashed = hash_images(tracked(stream(), "Reading calibration images", steps, progress))
    key = CalibrationKey(manifest.sha256, preprocessing.digest(), hashed)
    loop = tracked(stream(), f"Calibrating on {count} images of {data.source}", steps, progress)
    if cache is not None:
        return Calibrated(recipe, key, calibrate(model, loop, key, cache))
    folder = cache_folder()
    own = None if folder is None else folder / f"{key.digest()[:32]}.npz"
    if own is None:
        log.note("The calibration was not kept: your cache folder cannot be written.")
    return Calibrated(recipe, key, calibrate(model, loop, key, own, asked_for=False))


def cache_folder() -> Path | None:
    """Where calibrations are kept that name no file; None where that cannot be written."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(home) if Path(home).is_absolute() else expanded("~/.cache")  # others are void, says the XDG standard
    folder = base / "tofe-export" / "calibration"
    if not folder.is_absolute():  # no home
        return None
    try:  # permissions tell root nothing about a read-only disk
        tempfile.TemporaryFile(dir=next(place for place in (folder, *folder.parents) if is_there(place))).close()
    except (InputError, OSError):
        return None
    return folder
