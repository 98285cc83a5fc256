"""Checkpoints: written by `torch.save` or as safetensors, read without ever running code from the file."""

from __future__ import annotations

import io
import json
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from tofe_export import __version__
from tofe_export.artifacts.files import require_file, write_bytes
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.errors import InputError
from tofe_export.model.config import ToFeConfig
from tofe_export.model.tofe import ToFe, build_tofe

FORMAT = "tofe-export/checkpoint"
VERSION = 1
_WRAPPERS = ("state_dict_ema", "model_ema", "ema", "state_dict", "model")  # an EMA copy is preferred
_STAGE_KEY = re.compile(r"stages\.\d+\.selector\.")
_RUNS_CODE = re.compile(r"Unsupported (global|class|operand)|GLOBAL|not an allowed global|unrecognized function")
_MAGIC = (b"PK", b"\x80")  # a zip archive or a pickle
_TRAIN = "Train one with: tofe-export train --data digits -o RUN"


@dataclass(frozen=True)
class Checkpoint:
    """A trained network and what is needed to use it.

    Attributes:
        model: the network, in evaluation mode when loaded.
        keep_ratios: learned mean keep ratio per stage, each in (0, 1]; empty when unknown.
        preprocessing: how images become its input.
        metrics: what training measured; numbers and lists of numbers.
        data: what it was trained on, in the words of --data; "" when unknown.
        classes: names of the classes in the order of the logits; empty when unknown.
    """

    model: ToFe
    keep_ratios: tuple[float, ...]
    preprocessing: Preprocessing
    metrics: Mapping[str, Any] = field(default_factory=dict)
    data: str = ""
    classes: tuple[str, ...] = ()

    def keep_counts(self) -> tuple[int, ...]:
        """Keep counts from the learned ratios: round(ratio * N), at least 1.

        Raises:
            InputError: the checkpoint holds no ratios.
        """
        if not self.keep_ratios:
            raise InputError(
                "The checkpoint holds no learned keep ratios.", "Give --keep K1,K2,K3 or --keep-from DATA."
            )
        return tuple(min(self.model.tokens, max(1, round(ratio * self.model.tokens))) for ratio in self.keep_ratios)


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Writes `checkpoint` atomically; a name ending in .safetensors chooses that format.

    Raises:
        InputError, MissingError: see `write_bytes`.
    """
    weights = {key: value.detach().cpu().contiguous() for key, value in checkpoint.model.state_dict().items()}
    header = {
        "format": FORMAT,
        "version": VERSION,
        "tofe_export": __version__,
        "config": checkpoint.model.config.to_dict(),
        "keep_ratios": list(checkpoint.keep_ratios),
        "preprocessing": checkpoint.preprocessing.to_dict(),
        "metrics": dict(checkpoint.metrics),
        "data": checkpoint.data,
        "classes": list(checkpoint.classes),
    }
    # Serialized in memory: the libraries' own writers turn a full disk into errors that do not say so.
    if path.suffix == ".safetensors":
        write_bytes(path, safetensors.torch.save(weights, metadata={"tofe_export": json.dumps(header)}))
    else:
        buffer = io.BytesIO()
        torch.save({**header, "state_dict": weights}, buffer)
        write_bytes(path, buffer.getvalue())


def load(path: Path) -> Checkpoint:
    """The checkpoint in `path`, of this program or one whose weights were saved again by another trainer.

    Weights may carry a `module.` prefix, be wrapped in "model" or "state_dict", or have an EMA copy beside them
    (which is then the one used).

    Raises:
        InputError: no such file, not a checkpoint, truncated, a pickle that wants to run code, no ToFe weights,
            no configuration, unknown backbone, or weights of other shapes.
    """
    header, weights = read_weights(path)
    if not has_stages(weights):
        _refuse_foreign(path, weights)
    if "config" not in header:
        raise InputError(
            f"{path} holds ToFe weights but no configuration.",
            'Save it with tofe_export.model.checkpoint.save, or add a "config" entry (backbone, backbone_args).',
        )
    if header.get("version", VERSION) != VERSION:
        raise InputError(
            f"{path} has checkpoint version {header['version']}; this program reads {VERSION}.", "Update tofe-export."
        )
    model = build_tofe(ToFeConfig.from_dict(header["config"]))
    _load_weights(model, weights, path)
    known = header.get("preprocessing")
    return Checkpoint(
        model=model.eval(),
        keep_ratios=_ratios(header.get("keep_ratios", ()), len(model.stages), path),
        preprocessing=Preprocessing.of_backbone(model.vit) if known is None else Preprocessing.from_dict(known),
        metrics=header["metrics"] if isinstance(header.get("metrics"), Mapping) else {},
        data=str(header.get("data", "")),
        classes=_classes(header.get("classes", ()), path),
    )


def has_stages(weights: Mapping[str, Any]) -> bool:
    """Whether these are ToFe weights; other networks have `stages.N...` too, but no selectors in them."""
    return any(_STAGE_KEY.match(key) for key in weights)


def read_weights(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a file of weights says about its network, and the flat weights, whoever wrote it (see `load`).

    Raises:
        InputError: no such file, not a checkpoint, truncated, or a pickle that wants to run code.
    """
    require_file(path, _TRAIN)
    return _unwrap(_read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path), path)


def _read_pickle(path: Path) -> Mapping[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; what matters is refused below
            document = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if _starts_like_one(path) and _RUNS_CODE.search(str(error)):
            raise InputError(
                f"{path} is a pickle that wants to run code when it is opened, so it was not opened.",
                "Save plain weights: torch.save(model.state_dict(), ...), or use .safetensors.",
            ) from error
        raise _not_a_checkpoint(path) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise _not_a_checkpoint(path) from error
    if not isinstance(document, Mapping):
        raise InputError(f"{path} holds a {type(document).__name__}, not a checkpoint.", _TRAIN)
    return document


def _starts_like_one(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2).startswith(_MAGIC)


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("tofe_export", "{}"))
            return {**header, "state_dict": {key: file.get_tensor(key) for key in file.keys()}}  # noqa: SIM118
    except (safetensors.SafetensorError, json.JSONDecodeError, OSError, AttributeError, TypeError) as error:
        raise _not_a_checkpoint(path) from error


def _not_a_checkpoint(path: Path) -> InputError:
    return InputError(
        f"{path} is not a checkpoint, or it is damaged or truncated.",
        "Copy it again and compare its size with the original. " + _TRAIN,
    )


def _unwrap(document: Mapping[str, Any], path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Splits nested wrappers into what describes the network and the flat weights without `module.`."""
    header: dict[str, Any] = {}
    level = document
    for _ in range(4):
        header = {
            **{key: value for key, value in level.items() if isinstance(key, str) and key not in _WRAPPERS},
            **header,
        }
        inner = next((level[key] for key in _WRAPPERS if isinstance(level.get(key), Mapping)), None)
        if inner is None:
            break
        level = inner
    weights = {_strip(str(key)): value for key, value in level.items() if isinstance(value, Tensor)}
    if not weights:
        found = ", ".join(map(str, list(document)[:5])) or "nothing"
        raise InputError(f"{path} holds no weights; found: {found}.", _TRAIN)
    return header, weights


def _strip(key: str) -> str:
    while key.startswith("module."):
        key = key.removeprefix("module.")
    return key


def _refuse_foreign(path: Path, weights: Mapping[str, Tensor]) -> None:
    example = ", ".join(list(weights)[:3])
    raise InputError(
        f"{path} holds {len(weights)} tensors but no ToFe weights "
        f"(found {example}, ...; expected stages.0.selector...).",
        "If it is a plain backbone, fine-tune it: tofe-export train --data DIR --backbone NAME --init FILE -o RUN",
    )


def _load_weights(model: ToFe, weights: Mapping[str, Tensor], path: Path) -> None:
    expected = model.state_dict()
    wrong = [
        f"{key} is {list(weights[key].shape)}, expected {list(value.shape)}"
        for key, value in expected.items()
        if key in weights and weights[key].shape != value.shape
    ]
    missing = [f"{key} is missing" for key in expected if key not in weights]
    unknown = [f"{key} is not in the model" for key in weights if key not in expected]
    complaints = wrong + missing + unknown
    if complaints:
        more = f"; and {len(complaints) - 4} more" if len(complaints) > 4 else ""
        raise InputError(
            f"The weights in {path} do not fit {model.config.backbone}: {'; '.join(complaints[:4])}{more}.",
            "Mend backbone, backbone_args, selector or approximator in its configuration.",
        )
    model.load_state_dict(dict(weights))


def _classes(found: object, path: Path) -> tuple[str, ...]:
    if not isinstance(found, (list, tuple)) or not all(isinstance(name, str) for name in found):
        raise InputError(f"The class names in {path} are no list of texts.", "Save the checkpoint again.")
    return tuple(found)


def _ratios(found: object, stages: int, path: Path) -> tuple[float, ...]:
    if not isinstance(found, (list, tuple)) or not all(isinstance(r, (int, float)) and 0 <= r <= 1 for r in found):
        raise InputError(f"The keep ratios in {path} are not numbers between 0 and 1.", "Save the checkpoint again.")
    if found and len(found) != stages:
        raise InputError(f"{path} holds {len(found)} keep ratios for {stages} stages.", "Save the checkpoint again.")
    return tuple(float(ratio) for ratio in found)
