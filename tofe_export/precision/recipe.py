"""Calibration recipes: TOML files that say how a model is calibrated and what is quantized.

One file for both kinds of calibration: the ranges of INT8 and FP8, and the keep counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tofe_export.artifacts.files import read_toml, require_file
from tofe_export.artifacts.names import expanded, readable
from tofe_export.errors import InputError, brief, nearest
from tofe_export.precision.histogram import METHODS
from tofe_export.precision.kinds import ATTENTION, KINDS

AROUND = ("auto", "fp16", "fp32")
_MOST = 1 << 32
_WEIGHTED = tuple(kind for kind in KINDS if kind != ATTENTION)
# In the source tree recipes lie at the top; in an installed package inside it.
_SHIPPED = (Path(__file__).parents[2] / "calibration", Path(__file__).parents[1] / "calibration")


@dataclass(frozen=True)
class DataPart:
    """Which images: `source` as in --data, at most `samples` of them, drawn by `seed`."""

    source: str
    samples: int = 256
    seed: int = 0


@dataclass(frozen=True)
class RangesPart:
    """How ranges come from magnitudes; see `Histogram.range`."""

    method: str = "percentile"
    percentile: float = 99.99


@dataclass(frozen=True)
class QuantizePart:
    """What is computed in 8 bits.

    Attributes:
        per_channel: a scale for each output channel of a weight, else one for the whole weight.
        symmetric: zero points are 0; nothing else fits TensorRT.
        attention: both products of every attention in 8 bits, or neither.
        high_precision: kinds of layers that are not quantized.
        around: precision of everything else; "auto" is fp16 in an engine and fp32 in an ONNX file.
        reduce_range: INT8 weights of an ONNX file use 7 bits, so that ONNX Runtime computes the same everywhere: its
            kernels for x86 without VNNI saturate with 8. An engine calibrated from a float32 file uses 8.
    """

    per_channel: bool = True
    symmetric: bool = True
    attention: bool = True
    high_precision: tuple[str, ...] = ("patch_embed", "approximator", "selector", "head")
    around: str = "auto"
    reduce_range: bool = True

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of layers that are quantized."""
        chosen = (kind for kind in KINDS if kind not in self.high_precision)
        return tuple(kind for kind in chosen if kind != ATTENTION or self.attention)


@dataclass(frozen=True)
class KeepPart:
    """Which quantile, 0..1, of the images' kept tokens becomes the keep count."""

    quantile: float = 0.5


@dataclass(frozen=True)
class Recipe:
    """A whole recipe. `name` is the file's, without `.toml`."""

    name: str
    data: DataPart
    ranges: RangesPart = field(default_factory=RangesPart)
    quantize: QuantizePart = field(default_factory=QuantizePart)
    keep: KeepPart = field(default_factory=KeepPart)

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, for the manifest."""
        document = asdict(self)
        document["name"], document["data"]["source"] = readable(self.name), readable(self.data.source)
        document["quantize"]["high_precision"] = list(self.quantize.high_precision)
        return document

    @staticmethod
    def from_dict(document: Mapping[str, Any]) -> Recipe:
        """The inverse of `to_dict`.

        Raises:
            InputError: see `parse_recipe`.
        """
        if not isinstance(document, Mapping) or not isinstance(document.get("name", ""), str):
            raise InputError("The recipe is no object with a name.", "Quantize the model again.")
        tables = {name: table for name, table in document.items() if name != "name"}
        return parse_recipe(tables, Path(f"{document.get('name', 'recipe')}.toml"))


_PARTS: dict[str, type[DataPart | RangesPart | QuantizePart | KeepPart]] = {
    "data": DataPart,
    "ranges": RangesPart,
    "quantize": QuantizePart,
    "keep": KeepPart,
}


def shipped() -> dict[str, Path]:
    """Recipes that come with the program, by name."""
    return {path.stem: path for folder in _SHIPPED if folder.is_dir() for path in sorted(folder.glob("*.toml"))}


def read_recipe(spec: str) -> Recipe:
    """The recipe in a file, or a shipped one by its name.

    Raises:
        InputError: no such recipe, not TOML, or a key or value that cannot be used, named.
    """
    path = expanded(spec)
    if path.suffix != ".toml":
        known = shipped()
        if spec not in known:
            raise InputError(
                f"There is no recipe {spec!r}.", f"Name a .toml file, or one of: {', '.join(known) or 'none'}."
            )
        path = known[spec]
    require_file(path, f"Recipes that come with the program: {', '.join(shipped())}.")
    return parse_recipe(read_toml(path, "Compare it with calibration/digits.toml."), path)


def parse_recipe(document: dict[str, Any], path: Path) -> Recipe:
    """A recipe from TOML's tables.

    Raises:
        InputError: a key or value that cannot be used, named.
    """
    _refuse_unknown(document, tuple(_PARTS), "", path)
    if "data" not in document:
        raise InputError(f"{path} has no table [data].", 'It says which images: [data] with source = "digits".')
    parts = {name: _part(name, document.get(name, {}), path) for name in _PARTS if name in document}
    recipe = Recipe(path.stem, **parts)
    _check(recipe, path)
    return recipe


def _part(table: str, values: Any, path: Path) -> Any:
    kind = _PARTS[table]
    if not isinstance(values, dict):
        raise InputError(f"{path}: {table} is no table.", f"Write [{table}] and its keys below.")
    known = {item.name: item.type for item in fields(kind)}
    _refuse_unknown(values, tuple(known), f"{table}.", path)
    if kind is DataPart and "source" not in values:
        raise InputError(f"{path} lacks the key data.source.", 'For example source = "digits", or a folder.')
    return kind(**{key: _typed(f"{table}.{key}", value, str(known[key]), path) for key, value in values.items()})


def _refuse_unknown(found: dict[str, Any], known: tuple[str, ...], before: str, path: Path) -> None:
    for key in found:
        if key not in known:
            raise InputError(f"{path} has the unknown key {before}{key}.", f"Did you mean {nearest(str(key), known)}?")


def _typed(key: str, value: Any, kind: str, path: Path) -> Any:
    """TOML's value as the field's type; its types are exact, only whole numbers may stand for others."""
    if kind.startswith("tuple"):
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise InputError(f"{path}: {key} is {brief(value)}, not a list of texts.", f'Write {key} = ["head"].')
    expected = {"str": (str,), "int": (int,), "float": (float, int), "bool": (bool,)}[kind]
    if not isinstance(value, expected) or (isinstance(value, bool) and kind != "bool"):
        words = {"str": "a text", "int": "a whole number", "float": "a number", "bool": "true or false"}
        raise InputError(f"{path}: {key} is {brief(value)}, not {words[kind]}.", "Mend the recipe.")
    try:
        return float(value) if isinstance(value, int) and kind == "float" else value
    except OverflowError as error:
        raise InputError(f"{path}: {key} is {brief(value)}, which is too large.", "Mend the recipe.") from error


def _check(recipe: Recipe, path: Path) -> None:
    data, ranges, chosen, keep = recipe.data, recipe.ranges, recipe.quantize, recipe.keep
    _one_of("ranges.method", ranges.method, METHODS, path)
    _one_of("quantize.around", chosen.around, AROUND, path)
    for kind in chosen.high_precision:
        _one_of("quantize.high_precision", kind, _WEIGHTED, path)
    for holds, key, value, words in (
        (1 <= data.samples < _MOST, "data.samples", data.samples, "1 or more"),
        (0 <= data.seed < _MOST, "data.seed", data.seed, "0 or more"),
        (50 < ranges.percentile <= 100, "ranges.percentile", ranges.percentile, "above 50 and at most 100"),
        (0 <= keep.quantile <= 1, "keep.quantile", keep.quantile, "between 0 and 1"),
    ):
        if not holds:
            raise InputError(f"{path}: {key} is {brief(value)}; it must be {words}.", "Mend the recipe.")
    if not chosen.symmetric:
        raise InputError(
            f"{path}: quantize.symmetric is false, but TensorRT takes no zero point other than 0.", "Write true."
        )
    if not chosen.kinds:
        raise InputError(f"{path} leaves nothing to quantize.", "Take some kinds out of quantize.high_precision.")


def _one_of(key: str, value: str, allowed: tuple[str, ...], path: Path) -> None:
    if value not in allowed:
        raise InputError(f"{path}: {key} has {value!r}.", f"Known: {', '.join(allowed)}.")
