"""Files of weights, whoever wrote them: read without ever running code, flat, and told apart from their wrappers."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from tofe_export.errors import InputError
from tofe_export.files.names import DEPLOYED
from tofe_export.files.reading import parse_json, require_file

_WRAPPERS = ("state_dict_ema", "model_ema", "ema", "state_dict", "model")  # an EMA copy is preferred
_METHOD_RATES = ("base_rate", "base_keep_rate")
"""Names on the command lines of DynamicViT and EViT, which save an EMA copy too but evaluate the model itself."""
_RUNS_CODE = re.compile(r"Unsupported (global|class|operand)|GLOBAL|not an allowed global|unrecognized function")
_MAGIC = (b"PK", b"\x80")  # a zip archive or a pickle
_MODULE = re.compile(r"^(module\.)+")  # of DataParallel, perhaps several times
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_PLAIN = "Save it as plain numbers:"
_TRAIN = "Check the path, or train a small one to try: the demo does."
_KNOWN = 'A checkpoint is a state dict, or holds one under "state_dict" or "model".'


def read_weights(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a file of weights says about its network, and the flat weights, whoever wrote it (see `load`).

    Raises:
        InputError: no such file, not a checkpoint, truncated, or a pickle that wants to run code.
    """
    require_file(path, _TRAIN, code="no-checkpoint")
    return _unwrap(_read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path), path)


def trained_with(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The command line of the training that wrote a file, as published code leaves it in "args"; often empty."""
    arguments = document.get("args", {})
    return arguments if isinstance(arguments, Mapping) else getattr(arguments, "__dict__", {})


def _read_pickle(path: Path) -> Mapping[str, Any]:
    try:
        # Warnings are about pickle protocols; what matters is refused below.
        # Published training code saves its command line beside the weights: a namespace, which holds values only.
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals([argparse.Namespace]):
            document = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        with path.open("rb") as file:
            starts_like_one = file.read(2).startswith(_MAGIC)
        if starts_like_one and _RUNS_CODE.search(str(error)):
            raise InputError(
                f"{path} is a pickle that wants to run code when it is opened, so it was not opened.",
                "Save plain weights: torch.save(model.state_dict(), ...), or use .safetensors.",
                code="pickle-runs-code",
                path=path,
            ) from error
        raise _not_a_checkpoint(path) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise _not_a_checkpoint(path) from error
    if not isinstance(document, Mapping):
        raise InputError(
            f"{path} holds a {type(document).__name__}, not a checkpoint.", _KNOWN, code="not-a-checkpoint", path=path
        )
    return document


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = parse_json((file.metadata() or {}).get("tofe_export", "{}"), f"The header of {path}", _KNOWN)
            return {**header, "state_dict": {key: file.get_tensor(key) for key in file.keys()}}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, AttributeError, TypeError) as error:
        raise _not_a_checkpoint(path) from error


def _not_a_checkpoint(path: Path) -> InputError:
    if path.suffix in DEPLOYED:
        return InputError(
            f"{path} is named as an exported model is; what is needed here is a checkpoint.",
            "Name the checkpoint it came from; its manifest says which.",
            code="artifact-as-checkpoint",
            path=path,
        )
    return InputError(
        f"{path} is not a checkpoint, or it is damaged or truncated.",
        "Name a .pth or .safetensors file. If it is one, copy it again and compare its size with the original.",
        code="not-a-checkpoint",
        path=path,
    )


def _unwrap(document: Mapping[str, Any], path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Splits nested wrappers into what describes the network and the flat weights without `module.`."""
    header: dict[str, Any] = {}
    level = document
    wrappers = tuple(reversed(_WRAPPERS)) if trained_with(document).keys() & set(_METHOD_RATES) else _WRAPPERS
    for _ in range(4):
        header = {
            **{key: value for key, value in level.items() if isinstance(key, str) and key not in _WRAPPERS},
            **header,
        }
        inner = next((level[key] for key in wrappers if isinstance(level.get(key), Mapping)), None)
        if inner is None:
            break
        level = inner
    weights = {_MODULE.sub("", str(key)): value for key, value in level.items() if isinstance(value, Tensor)}
    require_plain(weights, path)
    if not weights:
        names = ", ".join(map(str, list(document)[:5])) or "nothing"
        raise InputError(f"{path} holds no weights, only: {names}.", _KNOWN, code="no-weights", path=path)
    return header, weights


def require_plain(weights: Mapping[str, Tensor], path: Path) -> None:
    """Raises InputError for a tensor that is not an array of real numbers in memory."""
    for key, value in weights.items():
        if value.is_meta:
            raise _unusable(key, path, "has no values, only a shape", "Save the weights themselves.")
        if value.is_quantized:
            raise _unusable(key, path, "is quantized", f"{_PLAIN} tensor.dequantize().")
        if value.layout != torch.strided:
            kind = str(value.layout).removeprefix("torch.").replace("_", " ")
            raise _unusable(key, path, f"is not a dense tensor but {kind}", f"{_PLAIN} tensor.to_dense().")
        if value.is_complex():
            raise _unusable(key, path, "holds complex numbers", "Save real weights.")


def require_floats(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor], path: Path) -> None:
    """Raises InputError where the network's state expects floats and gets codes, which mean nothing without a scale."""
    for key, value in weights.items():
        if key in expected and expected[key].is_floating_point() and value.dtype not in _FLOATS:
            kind = str(value.dtype).removeprefix("torch.")
            reason = f"is in {kind}, and its scale is not known"
            raise _unusable(key, path, reason, "Save the weights in float32, float16 or bfloat16.")


def _unusable(key: str, path: Path, reason: str, next_step: str) -> InputError:
    return InputError(f"{key} in {path} {reason}.", next_step, code="weight-unusable", path=path, name=key)


def count_held(weights: Mapping[str, Tensor]) -> int:
    """How many numbers the weights hold in memory; a tensor that repeats one number holds one."""
    return sum(min(value.numel(), value.untyped_storage().nbytes() // value.itemsize) for value in weights.values())
