"""This program's checkpoints: written by `torch.save` or as safetensors, read without running code from the file.

Other people's are read too, through `foreign`.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from tofe_export import __version__
from tofe_export.checkpoints.foreign import Hints, image_size_of, other_backbone, recognise
from tofe_export.checkpoints.hub import local, origin_of
from tofe_export.checkpoints.keep_rates import counts_of_rate, counts_of_ratios
from tofe_export.checkpoints.tensors import count_held, require_floats
from tofe_export.checkpoints.unwrap import FORMAT, Choice, Unwrapped
from tofe_export.checkpoints.weights import identity_of, read_weights
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.documents.hub import HubRevision
from tofe_export.documents.manifest import Copy
from tofe_export.errors import InputError
from tofe_export.files.names import CHECKPOINT, HUB_FILES
from tofe_export.files.places import is_there
from tofe_export.files.writing import write_bytes
from tofe_export.model.allocation import AtMost
from tofe_export.model.backbones import image_shape
from tofe_export.model.config import ToFeConfig
from tofe_export.model.tofe import ToFe, build_tofe

VERSION = 1
OWN = "ToFe"
_STAGE_KEY = re.compile(r"stages\.\d+\.selector\.")


@dataclass(frozen=True)
class Checkpoint:
    """A trained network and what is needed to use it.

    Attributes:
        model: the network, in evaluation mode when loaded.
        keep_ratios: learned mean keep ratio per stage, each in (0, 1]; empty when unknown.
        preprocessing: how images become its input.
        metrics: what training measured; numbers and lists of numbers.
        data: what it was trained on, as `open_source` takes it; "" when unknown.
        classes: names of the classes in the order of the logits; empty when unknown.
        recognised: what kind of file it came from, for people.
        notes: what the user should know about it, a sentence each.
        assumed: what neither the file nor the user said of it, a sentence each.
        copy: which of the two copies of the weights in the file it is; None where there is one.
        keep_rate: of a DynamicViT or EViT, the share kept at each stage; None when unknown.
        weights_sha256: of names, shapes and values as loaded, before resizing: equal exactly for the same weights, in
            whatever file; "" where they were not loaded.
        path: the file it was loaded from; None where it was not.
        file_sha256: of that file; "" where there is none.
        hub: of a file in the Hugging Face hub's cache, its repository and revision.
    """

    model: ToFe
    keep_ratios: tuple[float, ...]
    preprocessing: Preprocessing
    metrics: Mapping[str, Any] = field(default_factory=dict)
    data: str = ""
    classes: tuple[str, ...] = ()
    recognised: str = OWN
    notes: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    copy: Copy | None = None
    keep_rate: float | None = None
    weights_sha256: str = ""
    path: Path | None = None
    file_sha256: str = ""
    hub: HubRevision | None = None

    def keep_counts(self) -> tuple[int, ...]:
        """Keep counts from the learned ratios or the method's keep rate; empty for a dense network.

        Raises:
            InputError: the checkpoint holds neither.
        """
        if not self.model.stages:
            return ()
        if self.keep_rate is not None:
            return counts_of_rate(self.model, self.keep_rate)
        if self.keep_ratios:
            return counts_of_ratios(self.keep_ratios, self.model.tokens)
        if self.model.discards and self.recognised != OWN:
            message = f"The {self.recognised} checkpoint does not say how many tokens it keeps."
            raise InputError(message, "Give `keep_rate` (such as 0.7), or `keep`.", code="no-keep-rate", path=self.path)
        message = "The checkpoint holds no learned keep ratios."
        raise InputError(message, "Give `keep` or `keep_from`.", code="no-keep-ratios", path=self.path)

    @property
    def knows_keep(self) -> bool:
        """Whether `keep_counts` has an answer."""
        return bool(self.keep_ratios) or self.keep_rate is not None or not self.model.stages


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Writes `checkpoint` as `write_bytes` does; a name ending in .safetensors chooses that format."""
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


def load(path: Path, hints: Hints | None = None) -> Checkpoint:
    """The checkpoint in `path`: of this program, perhaps saved again by another trainer, or of another method.

    Weights may lie in wrappers, under a prefix, and beside a second copy of them; see `unwrap`.

    The path may be the folder of a training run or of a hub's repository, or a name on the Hugging Face hub, which is
    downloaded (see `hub.local`). Hints are what the file does not say, and the
    image size to take.

    Raises:
        InputError: no such file, not a checkpoint, truncated, a pickle that wants to run code, a network that is not
            recognized, weights of other shapes, or hints that do not fit; and see `hub.local`.
        MissingError: a name on the hub without a network; see `hub.local`.
    """
    path, hints = checkpoint_file(path), hints or Hints()
    return _loaded(path, read_weights(path, hints.weights), hints)


def load_for(path: Path, config: ToFeConfig, size: tuple[int, int]) -> Checkpoint:
    """The checkpoint in `path` to start a run of `config` from, for images of `size` (height, width) in pixels.

    It may be this program's, with a network of its own, or whatever holds weights of the backbone; see `load`.
    """
    path = checkpoint_file(path)
    file = read_weights(path)
    own = is_own(file.header, file.weights)
    arguments = {key: value for key, value in config.backbone_args.items() if key not in ("img_size", "num_classes")}
    hints = Hints(image_size=size) if own else Hints(config.backbone, arguments, image_size=size)
    return _loaded(path, file, hints)


def load_like(source: Path | Checkpoint, config: ToFeConfig, copy: Copy | None = None) -> Checkpoint:
    """The checkpoint `source` as the network of `config`, which was made from it before.

    `config` says what a foreign file does not say, and which image size was chosen. The caller must check whether the
    result is that network. `copy` is the one that was taken where the file holds two. A path is taken, and refused, as
    by `load`.
    """
    if isinstance(source, Checkpoint):
        size = image_size_of(config)
        if source.path is None or size == image_size_of(source.model.config):
            return _resized(source, size, copied=True)
        copy = source.copy
        source = source.path  # resized from the weights as they were trained, not for the second time
    path = checkpoint_file(source)
    choice: Choice = copy or "auto"
    file = read_weights(path, choice)
    own = is_own(file.header, file.weights)
    return _loaded(path, file, Hints(image_size=image_size_of(config)) if own else Hints.of(config, choice))


def checkpoint_file(path: Path) -> Path:
    """`path` itself, or the checkpoint in it where it is the folder of a training run, or one as hubs have them.

    A name on the Hugging Face hub stands for such a folder; see `hub.local` for what it raises.
    """
    path = local(path)
    if not is_there(path) or not path.is_dir():
        return path
    names = (CHECKPOINT, *HUB_FILES)
    found = next((path / name for name in names if (path / name).is_file()), None)
    if found is None:
        raise InputError(
            f"{path} is a folder without a checkpoint ({', '.join(names)}).",
            "Name the file of weights itself.",
            code="folder-without-checkpoint",
            path=path,
        )
    return found


def is_own(header: Mapping[str, Any], weights: Mapping[str, Any]) -> bool:
    """Whether these are ToFe weights; other networks have `stages.N...` too, but no selectors in them."""
    return header.get("format") == FORMAT or any(_STAGE_KEY.match(key) for key in weights)


def _loaded(path: Path, file: Unwrapped, hints: Hints) -> Checkpoint:
    checkpoint = (_own if is_own(file.header, file.weights) else _foreign)(file, hints, path)
    # Before resizing: interpolated position embeddings may differ in the last bit from machine to machine.
    checkpoint = dataclasses.replace(
        checkpoint,
        notes=(*file.notes, *checkpoint.notes),
        copy=file.copy,
        weights_sha256=weights_sha256(checkpoint.model),
        path=path,
        file_sha256=identity_of(path),
        hub=origin_of(path),
    )
    return _resized(checkpoint, hints.image_size)


def _own(file: Unwrapped, hints: Hints, path: Path) -> Checkpoint:
    header, weights = file.header, file.weights
    if dataclasses.replace(hints, image_size=None, weights="auto") != Hints():
        raise InputError(
            f"{path} is a checkpoint of this program, which says itself what it is.",
            "Omit `backbone`, `backbone_args`, `selector`, `stages`, `fuse_token` and `keep_rate`.",
            code="hints-of-own-checkpoint",
            path=path,
        )
    if "config" not in header:
        raise InputError(
            f"{path} holds ToFe weights but no configuration.",
            'Save it with tofe_export.checkpoints.checkpoint.save, or add a "config" entry (backbone, backbone_args).',
            code="no-configuration",
            path=path,
        )
    if header.get("version", VERSION) != VERSION:
        message = f"{path} has checkpoint version {header['version']}; this program reads {VERSION}."
        raise InputError(message, "Update tofe-export.", code="checkpoint-version", path=path)
    next_step = "Correct backbone, backbone_args, selector or approximator in its configuration."
    model = _build(ToFeConfig.from_dict(header["config"]), weights, path, next_step)
    known, data = header.get("preprocessing"), header.get("data")
    return Checkpoint(
        model=model.eval(),
        keep_ratios=_ratios(header.get("keep_ratios", ()), len(model.stages), path),
        preprocessing=Preprocessing.of_backbone(model.vit) if known is None else Preprocessing.from_dict(known),
        metrics=_metrics(header.get("metrics")),
        data=data if isinstance(data, str) else "",
        classes=_classes(header.get("classes", ()), path),
    )


def _foreign(file: Unwrapped, hints: Hints, path: Path) -> Checkpoint:
    recognised = recognise(file, hints, path)
    model = _build(recognised.config, recognised.weights, path, other_backbone(file.weights, recognised.config))
    return Checkpoint(
        model=model.eval(),
        keep_ratios=(),
        preprocessing=Preprocessing.of_backbone(model.vit, recognised.images),
        classes=recognised.classes,
        recognised=recognised.description,
        notes=recognised.notes,
        assumed=recognised.assumed,
        keep_rate=recognised.keep_rate,
    )


def weights_sha256(model: ToFe) -> str:
    """Of all weights, with their names, kinds and shapes; hexadecimal."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        tensor = value.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _resized(checkpoint: Checkpoint, size: tuple[int, int] | None, copied: bool = False) -> Checkpoint:
    """`checkpoint` for images of `size`; its network is changed in place unless it is to be `copied`."""
    if size is None or size == image_shape(checkpoint.model.vit)[1:]:
        return checkpoint
    model = copy.deepcopy(checkpoint.model) if copied else checkpoint.model
    model.set_image_size(*size)
    preprocessing = dataclasses.replace(checkpoint.preprocessing, height=size[0], width=size[1])
    return dataclasses.replace(checkpoint, model=model, preprocessing=preprocessing)


def _build(config: ToFeConfig, weights: Mapping[str, Tensor], path: Path, next_step: str) -> ToFe:
    """The network of `config` with these weights, built only where they can fill it."""
    held = count_held(weights)
    too_few = InputError(
        f"{path} holds {held:,} numbers, too few for the network it describes.",
        next_step,
        code="too-few-weights",
        path=path,
    )
    with AtMost(held, too_few):
        model = build_tofe(config)
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
        message = f"The weights in {path} do not fit {model.config.backbone}: {'; '.join(complaints[:4])}{more}."
        raise InputError(message, next_step, code="weights-do-not-fit", path=path, backbone=model.config.backbone)
    require_floats(expected, weights, path)
    model.load_state_dict(dict(weights))
    return model


def _classes(names: object, path: Path) -> tuple[str, ...]:
    if isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names):
        return tuple(names)
    message = f"The class names in {path} are not a list of texts."
    raise InputError(message, "Save the checkpoint again.", code="checkpoint-classes", path=path)


def _metrics(metrics: object) -> dict[str, Any]:
    """What JSON can hold of what training measured; the rest is omitted, for it is not needed to use the file."""
    known = metrics if isinstance(metrics, Mapping) else {}
    return {name: value for name, value in known.items() if isinstance(name, str) and _is_plain(value)}


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(not isinstance(item, (list, tuple)) and _is_plain(item) for item in value)
    return value is None or isinstance(value, (str, bool, int, float))


def _ratios(ratios: object, stages: int, path: Path) -> tuple[float, ...]:
    if not isinstance(ratios, (list, tuple)) or not all(type(r) in (int, float) and 0 <= r <= 1 for r in ratios):
        complaint = f"The keep ratios in {path} are not numbers between 0 and 1."
    elif ratios and len(ratios) != stages:
        complaint = f"{path} holds {len(ratios)} keep ratios for {stages} stages."
    else:
        return tuple(map(float, ratios))
    raise InputError(complaint, "Save the checkpoint again.", code="checkpoint-keep-ratios", path=path)
