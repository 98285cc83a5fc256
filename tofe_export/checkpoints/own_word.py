"""What a file of weights, or the config.json beside it, says of its backbone and of how its images were prepared.

In this order: the config.json of timm's hub folders; `arch` and `args`, as timm's and DeiT's training code save them;
`hyper_parameters`, as Lightning does. A name that timm does not know says nothing: DynamicViT and EViT have their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm

from tofe_export.checkpoints.weights import trained_with
from tofe_export.files.names import HUB_FILES
from tofe_export.files.reading import read_json

_CONFIG = "config.json"
_NAMES = ("arch", "architecture", "model_name", "backbone", "model")
_IMAGES = ("mean", "std", "interpolation", "crop_pct", "crop_mode")
_CROPS = "eval_crop_ratio"  # DeiT's word for crop_pct


@dataclass(frozen=True)
class Assumption:
    """What nobody says, in a sentence, and the arguments of the user with any of which it is said after all."""

    sentence: str
    settled_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Told:
    """What was said.

    Attributes:
        backbone: timm's name, perhaps with the tag of its pretrained weights; None where nothing names one.
        arguments: of `timm.create_model`, beside what shapes show.
        images: what differs from the backbone's own preprocessing, under timm's names.
        by: what says so, for people.
        notes: what the user should know, a sentence each.
        assumed: what is not said after all.
        classes: their names in the order of the logits; empty where they are not said.
    """

    backbone: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, Any] = field(default_factory=dict)
    by: str = ""
    notes: tuple[str, ...] = ()
    assumed: tuple[Assumption, ...] = ()
    classes: tuple[str, ...] = ()


def told_by(header: Mapping[str, Any], path: Path) -> Told:
    """What the file at `path`, with this header, or the folder around it says.

    Raises:
        InputError: the config.json beside it is not readable as JSON.
    """
    config = path.with_name(_CONFIG)  # beside a file of any other name it may belong to something else
    if path.name in HUB_FILES and config.is_file():
        document = read_json(config)
        if isinstance(document, Mapping) and (name := _known(document.get("architecture"))):
            prepared = document.get("pretrained_cfg", document)
            arguments, images = _mapping(document.get("model_args")), _images(_mapping(prepared))
            return Told(name, arguments, images, _CONFIG, classes=_texts(document.get("label_names")))
    for place, said in _places(header):
        name = next((found for key in _NAMES if (found := _known(said.get(key)))), None)
        if name is not None:
            trained = {**_mapping(said), **trained_with(header)}
            return Told(name, _mapping(trained.get("model_kwargs")), _images(trained), place)
    return Told(images=_images(trained_with(header)))


def _places(header: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "arch", {"arch": header.get("arch")}
    yield "args", trained_with(header)
    yield "hyper_parameters", _mapping(header.get("hyper_parameters"))


def _known(name: object) -> str | None:
    """timm's name of a network, without the hub's `timm/` before it; None where there is none."""
    if not isinstance(name, str):
        return None
    short = name.rpartition("/")[2]
    return short if short and timm.is_model(short) else None


def _images(said: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: said[name] for name in _IMAGES if said.get(name)}
    if said.get(_CROPS):
        found.setdefault("crop_pct", said[_CROPS])
    if not isinstance(found.get("interpolation", ""), str):  # Pillow's number, in DeiT's older code
        del found["interpolation"]
    return found


def classes_by_number(names: object) -> tuple[str, ...]:
    """The class names of a mapping from "0", "1", ..., as transformers writes it; none where they are made up."""
    known = {str(number): name for number, name in _mapping(names).items()}
    found = [known.get(str(number)) for number in range(len(known))]
    return () if any(name == f"LABEL_{number}" for number, name in enumerate(found)) else _texts(found)


def _texts(names: object) -> tuple[str, ...]:
    """Different texts in a list; none where it is anything else."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return ()
    return tuple(names) if len(set(names)) == len(names) else ()


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
