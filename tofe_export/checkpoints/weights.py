"""Files of weights, whoever wrote them: read without ever running code."""

from __future__ import annotations

import argparse
import hashlib
import pathlib
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch

from tofe_export.checkpoints.not_checkpoints import is_numpy_archive, is_safetensors, refusal, require_local
from tofe_export.checkpoints.unwrap import KNOWN, Choice, Unwrapped, unwrap
from tofe_export.errors import InputError
from tofe_export.files.names import INDEX
from tofe_export.files.reading import parse_json, read_json, require_file, sha256

_METHOD_RATES = ("base_rate", "base_keep_rate")
"""Names on the command lines of DynamicViT and EViT, which save an EMA copy too but evaluate the model itself."""
_RUNS_CODE = re.compile(r"Unsupported (?:global|class|operand)|GLOBAL|not an allowed global|unrecognized function")
_CLASS = re.compile(r"(?:GLOBAL|global:?|class) ([A-Za-z_][\w.]*\.\w+)")
_MAGIC = (b"PK", b"\x80")  # a zip archive or a pickle
_DAMAGED = (
    *(RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError),
    *(struct.error, MemoryError),
)
"""What PyTorch raises for a damaged pickle."""
_MOST_PACKED = 100  # weights hardly compress; what unpacks to more is made to fill the memory
_TRAIN = "Check the path, or train a small one to try: the demo does."


def _dict_of_defaults(*_: object) -> dict[Any, Any]:
    """Stands for `collections.defaultdict`, which PyTorch's reader makes but does not fill."""
    return {}


_SCALAR, _ARRAY = np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]  # what NumPy's pickles call
# What training code leaves beside the weights, its command line above all. These hold values and run nothing.
_HARMLESS: list[Any] = [
    *(argparse.Namespace, list, dict, set, int, float, str, (_dict_of_defaults, "collections.defaultdict")),
    *(
        (kind, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")
        for kind in (pathlib.PurePosixPath, pathlib.PureWindowsPath)
        for name in (kind.__name__, kind.__name__.removeprefix("Pure"))
    ),
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((_ARRAY, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *(
        np.ndarray,
        np.dtype,
        *{type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["Float"] + "?"},
    ),
]


def read_weights(path: Path, choice: Choice = "auto") -> Unwrapped:
    """What a file of weights says about its network, and the flat weights, whoever wrote it (see `load`).

    Where it holds two copies, `choice` says which to take; see `unwrap`.

    Raises:
        InputError: no such file, not a checkpoint, truncated, or a pickle that wants to run code; and see `unwrap`.
    """
    require_local(path)
    require_file(path, _TRAIN, code="no-checkpoint")
    document = _read_index(path) if path.name.endswith(INDEX) else _read_one(path)
    evaluates_model = bool(trained_with(document).keys() & set(_METHOD_RATES))
    return unwrap(document, choice, evaluates_model, path)


def _read_one(path: Path) -> Mapping[str, Any]:
    if is_safetensors(path):
        return _read_safetensors(path)
    return _read_arrays(path) if is_numpy_archive(path) else _read_pickle(path)


def parts_of(path: Path) -> list[Path]:
    """The files that an index names, which lie beside it.

    Raises:
        InputError: it is none, or names a file elsewhere.
    """
    names = sorted(set(_places_in(path).values()))
    elsewhere = next((name for name in names if name != Path(name).name or name in ("", ".", "..")), None)
    if elsewhere is not None:
        message = f"{path} points to a file outside its folder: {elsewhere}."
        raise InputError(message, "Take the files from where they came from again.", code="part-elsewhere", path=path)
    return [path.with_name(name) for name in names]


def identity_of(path: Path) -> str:
    """The hash of the file; of an index, that of all its parts too."""
    own = sha256(path)
    parts = "".join(map(sha256, parts_of(path))) if path.name.endswith(INDEX) else ""
    return hashlib.sha256(f"{own}{parts}".encode()).hexdigest() if parts else own


def _places_in(path: Path) -> Mapping[str, str]:
    """Of an index: weight -> name of its file."""
    index = read_json(path)
    places = index.get("weight_map") if isinstance(index, Mapping) else None
    if not isinstance(places, Mapping) or not places or not all(isinstance(name, str) for name in places.values()):
        raise refusal(path)
    return places


def _read_index(path: Path) -> Mapping[str, Any]:
    """A checkpoint in several files: the index says which weight lies in which file beside it."""
    places, weights = _places_in(path), dict[str, Any]()
    for part in parts_of(path):
        require_file(part, f"Copy every file that {path.name} names.", code="part-missing")
        read = _read_one(part)
        weights |= read["state_dict"] if is_safetensors(part) else read
    missing = sorted(places.keys() - weights.keys())
    if missing:
        raise InputError(
            f"{path} names {len(missing)} weights that are not in its files, such as {missing[0]}.",
            "Copy the files again.",
            code="part-incomplete",
            path=path,
        )
    return {"state_dict": weights}


def _read_arrays(path: Path) -> Mapping[str, Any]:
    """A NumPy archive, as JAX's vision transformers are published; arrays of objects would run code."""
    found = {}
    try:
        with zipfile.ZipFile(path) as packed:
            if sum(entry.file_size for entry in packed.infolist()) > _MOST_PACKED * path.stat().st_size:
                raise refusal(path)
        with np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                array = archive[name]
                if array.dtype.kind in "fiu":
                    found[name] = torch.from_numpy(np.ascontiguousarray(array))
    except (ValueError, OSError, EOFError, KeyError, TypeError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise refusal(path) from error
    return found


def trained_with(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The command line of the training that wrote a file, as published code leaves it in "args"; often empty."""
    arguments = document.get("args", {})
    return arguments if isinstance(arguments, Mapping) else getattr(arguments, "__dict__", {})


def _read_pickle(path: Path) -> Mapping[str, Any]:
    try:
        # Warnings are about pickle protocols; what matters is refused below.
        with (
            warnings.catch_warnings(action="ignore"),
            torch.serialization.safe_globals(_HARMLESS),
            path.open("rb") as file,  # by its content, whatever its name
        ):
            document = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        with path.open("rb") as file:
            starts_like_one = file.read(2).startswith(_MAGIC)
        if starts_like_one and _RUNS_CODE.search(str(error)):
            named = _CLASS.search(str(error))
            held = f"holds an object of {named[1]}" if named else "wants to run code when it is opened"
            raise InputError(
                f"{path} is a pickle that {held}; only running code could open it, so it was not opened.",
                "Save plain weights: torch.save(model.state_dict(), ...), or use .safetensors.",
                code="pickle-runs-code",
                path=path,
            ) from error
        raise refusal(path) from error
    except _DAMAGED as error:
        raise refusal(path) from error
    if not isinstance(document, Mapping):
        raise InputError(
            f"{path} holds one value ({type(document).__name__}), not a checkpoint.",
            KNOWN,
            code="not-a-checkpoint",
            path=path,
        )
    return document


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = parse_json((file.metadata() or {}).get("tofe_export", "{}"), f"The header of {path}", KNOWN)
            return {**header, "state_dict": {key: file.get_tensor(key) for key in file.keys()}}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, AttributeError, TypeError) as error:
        raise refusal(path) from error
