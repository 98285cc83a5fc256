"""From what a file holds to one flat set of weights: wrappers, copies, prefixes and what is not part of the network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from tofe_export.checkpoints.tensors import require_plain
from tofe_export.documents.manifest import Copy
from tofe_export.errors import InputError, brief

Choice = Literal["auto", "model", "ema"]
CHOICES: tuple[Choice, ...] = ("auto", "model", "ema")

FORMAT = "tofe-export/checkpoint"
"""What the header of this program's own files says under "format"."""
KNOWN = 'A checkpoint is a state dict, or holds one under "state_dict" or "model".'
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "module")
_DEPTH = 5  # wrappers in wrappers


@dataclass(frozen=True)
class _Pair:
    """Two copies that one kind of file holds, and which of them the code that wrote it evaluates."""

    model: str
    ema: str
    evaluated: Copy
    by: str


_PAIRS = (
    _Pair("state_dict", "state_dict_ema", "ema", "timm loads it"),
    _Pair("model", "model_ema", "model", "DeiT's code evaluates it"),
    _Pair("student", "teacher", "ema", "DINO's code evaluates it"),
    _Pair("model", "ema", "model", "most code evaluates it"),
)
_NAMES = (*_WRAPPERS, *(pair.ema for pair in _PAIRS))
_ANCHOR = re.compile(r"(?:.*\.)?patch_embed\.(?:proj|conv1)\.weight")
"""A weight that every plain ViT has, LV-ViT by the name of its stem; before it there may be a prefix."""
_SPARE = re.compile(r"(?:.*\.)?(?:n_averaged|logit_scale|logit_bias|mask_token|pre_logits\..+|(?:loss|criterion)\..+)")
"""Values that training code keeps beside a network; the network is the same without them."""
_BEFORE_HEAD = re.compile(r"(?:.*\.)?pre_logits\..+")
_INSIDE = re.compile(r"(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch.compile, FSDP and activation checkpointing put into names, anywhere."""
_PRUNED, _MASK = "_orig", "_mask"  # torch.nn.utils.prune: a weight is the product of both


@dataclass(frozen=True)
class Unwrapped:
    """A flat set of weights.

    Attributes:
        header: what else the file says, of the outer and the inner wrappers.
        weights: under the network's own names.
        copy: which of two copies they are; None where the file holds one.
        notes: what was chosen or left out, a sentence each.
    """

    header: dict[str, Any]
    weights: dict[str, Tensor]
    copy: Copy | None = None
    notes: tuple[str, ...] = ()


def unwrap(document: Mapping[str, Any], choice: Choice, evaluates_model: bool, path: Path) -> Unwrapped:
    """The weights in what a file holds.

    Args:
        document: the file.
        choice: which of two copies to take; "auto" takes the one that the code which wrote the file evaluates.
        evaluates_model: that code evaluates the model itself, whatever the names of the copies say.
        path: the file's, for messages.

    Raises:
        InputError: no weights, several networks, a choice that is not there or of an unknown name.
    """
    if choice not in CHOICES:
        raise InputError(f"`weights` is {brief(choice)}.", "Give auto, model or ema.", code="unknown-value")
    header: dict[str, Any] = {}
    level, copy, notes = document, None, []
    for _ in range(_DEPTH):
        described = {key: value for key, value in level.items() if isinstance(key, str) and key not in _NAMES}
        header = {**described, **header}
        pair = next((one for one in _PAIRS if _holds(level, one.model) and _holds(level, one.ema)), None)
        if pair is not None:
            copy, note = _choose(pair, choice, evaluates_model)
            notes.append(note)
            level = level[pair.model if copy == "model" else pair.ema]
            continue
        inner = next((name for name in _NAMES if _holds(level, name)), None)
        if inner is None:
            break
        level = level[inner]
    flat = {_INSIDE.sub("", str(key)): value for key, value in level.items() if isinstance(value, Tensor)}
    if not flat:
        found = ", ".join(map(str, list(document)[:5])) or "nothing"
        raise InputError(f"{path} holds no weights, only: {found}.", KNOWN, code="no-weights", path=path)
    require_plain(flat, path)
    flat = _multiplied(flat)
    prefix, copy, note = _prefix(flat, header.get("format") == FORMAT, choice, copy, path)
    weights = {key.removeprefix(prefix): value for key, value in flat.items() if key.startswith(prefix)}
    spare = sorted({*(flat.keys() - {prefix + key for key in weights}), *filter(_SPARE.fullmatch, weights)})
    weights = {key: value for key, value in weights.items() if key not in spare}
    if any(map(_BEFORE_HEAD.fullmatch, spare)) and "head.weight" in weights:
        weights = {key: value for key, value in weights.items() if not key.startswith("head.")}
        notes.append("Its classifier reads a layer (pre_logits) that timm's networks have no more, and was left out.")
    notes += [note] if note else []
    notes += [f'The prefix "{prefix}" was taken off its names.'] if prefix else []
    if spare:
        shown = ", ".join(spare[:3]) + (", ..." if len(spare) > 3 else "")
        notes.append(f"{len(spare)} of its tensors do not belong to the network and were left out: {shown}.")
    if choice != "auto" and copy is None:
        raise InputError(
            f"{path} holds one copy of the weights, so there is nothing to choose.",
            "Omit `weights`.",
            code="one-copy",
            path=path,
        )
    return Unwrapped(header, weights, copy, tuple(notes))


def _holds(level: Mapping[str, Any], name: str) -> bool:
    """Whether `level` has a wrapper of this name, with tensors or more wrappers in it."""
    inner = level.get(name)
    return isinstance(inner, Mapping) and any(isinstance(value, (Tensor, Mapping)) for value in inner.values())


def _choose(pair: _Pair, choice: Choice, evaluates_model: bool) -> tuple[Copy, str]:
    copy = choice if choice != "auto" else "model" if evaluates_model else pair.evaluated
    taken, other = (pair.model, "ema") if copy == "model" else (pair.ema, "model")
    by = "the method's own code evaluates it" if evaluates_model else pair.by
    why = "as you say" if choice != "auto" else f"as {by}"
    return copy, f'It holds two copies of the weights; "{taken}" was taken, {why}. The other: `weights="{other}"`.'


def _multiplied(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Pruned weights as the network uses them: what was trained times its mask."""
    pruned = [key for key in weights if key.endswith(_PRUNED) and key.removesuffix(_PRUNED) + _MASK in weights]
    for key in pruned:
        name = key.removesuffix(_PRUNED)
        if weights[key].shape == weights[name + _MASK].shape:
            weights[name] = weights.pop(key) * weights.pop(name + _MASK)
    return weights


def _prefix(
    weights: Mapping[str, Tensor], own: bool, choice: Choice, copy: Copy | None, path: Path
) -> tuple[str, Copy | None, str]:
    """What stands before the network's own names, the copy it belongs to, and a note where two were to choose from."""
    found = sorted({_before(key, own, weights) for key in weights if _ANCHOR.fullmatch(key)})
    if len(found) <= 1:
        return (found[0] if found else _parallel(weights)), copy, ""
    for pair in _PAIRS:
        model, ema = ([prefix for prefix in found if name in prefix.split(".")] for name in (pair.model, pair.ema))
        if len(found) == 2 and model and ema:
            taken, note = _choose(pair, choice, evaluates_model=False)
            return (model if taken == "model" else ema)[-1], taken, note
    shown = ", ".join(repr(prefix.removesuffix(".")) for prefix in found)
    raise InputError(
        f"{path} holds several networks: {shown}.",
        "Save the one to export alone: torch.save(network.state_dict(), ...).",
        code="several-networks",
        path=path,
    )


def _before(key: str, own: bool, weights: Mapping[str, Tensor]) -> str:
    """The prefix of one anchor; this program's own networks have a `vit.` there, beside their stages."""
    prefix = key[: key.rindex("patch_embed.")]
    outer = prefix.removesuffix("vit.")
    return outer if own or any(other.startswith(f"{outer}stages.") for other in weights) else prefix


def _parallel(weights: Mapping[str, Tensor]) -> str:
    """The prefix of DataParallel, perhaps repeated, where no anchor tells; "" where not every name has it."""
    prefix = ""
    while all(key.startswith(f"{prefix}module.") for key in weights):
        prefix += "module."
    return prefix
