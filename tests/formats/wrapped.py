"""One network in all the ways in which training code saves it."""

from __future__ import annotations

import argparse
import collections
import copy
import functools
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from tests.formats.case import Case, Make
from tests.formats.networks import SMALL, hints, network

State = dict[str, Tensor]
NAMED = ("vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "vit_small_patch16_dinov3")
"""Networks that are saved in every way."""


def cases() -> Iterator[Case]:
    """Every way for some networks, the usual ones for the others."""
    for name in NAMED:
        for way, document in {**_wrappers(name), **_prefixes(), **_beside(name), **_numbers()}.items():
            yield Case("wrapped", f"{name}: {way}", _saved(name, document), _as_read(name, way), hints(name))
    for name in SMALL:
        for way, make in _files(name).items():
            yield Case("files", f"{name}: {way}", make, network(name), hints(name))


def _as_read(name: str, way: str) -> nn.Module:
    """The network, or one with the rounded weights that the file holds."""
    kind = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(way)
    if kind is None:
        return network(name)
    rounded = copy.deepcopy(network(name))
    rounded.load_state_dict({key: value.to(kind).float() for key, value in rounded.state_dict().items()})
    return rounded


def _saved(name: str, document: Callable[[State], Any], **options: Any) -> Make:
    def make(folder: Path) -> Path:
        torch.save(document(dict(network(name).state_dict())), folder / "checkpoint.pth", **options)
        return folder / "checkpoint.pth"

    return make


def _under(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + key: value for key, value in state.items()}


def _wrappers(name: str) -> dict[str, Callable[[State], Any]]:
    arguments = argparse.Namespace(model=name, output_dir=pathlib.Path("out"), lr=np.float64(1e-3))
    other = _shaken
    return {
        "state dict": dict,
        "OrderedDict": collections.OrderedDict,
        **{f'under "{key}"': functools.partial(_inside, key) for key in _KEYS},
        "epoch and optimizer": lambda state: {
            "epoch": 3,
            "model": state,
            "optimizer": {"state": {}, "param_groups": [{}]},
        },
        "timm": lambda state: {"arch": name, "state_dict": state, "epoch": 1, "args": arguments},
        "timm, average taken": lambda state: {"arch": name, "state_dict": other(state), "state_dict_ema": state},
        "DeiT": lambda state: {"model": state, "model_ema": other(state), "args": arguments, "scaler": {"scale": 1.0}},
        "DINO": lambda state: {
            "student": _under("module.backbone.")(other(state)),
            "teacher": _under("backbone.")(state) | {"head.mlp.0.weight": torch.randn(4, 4)},
        },
        "Lightning": lambda state: {
            "state_dict": _under("model.")(state),
            "hyper_parameters": collections.defaultdict(int, lr=0.1),
            "pytorch-lightning_version": "2.4.0",
        },
        "Lightning, in a criterion": lambda state: {
            "state_dict": _under("net.")(state) | {"criterion.weight": torch.ones(7)}
        },
        "DeepSpeed": lambda state: {"module": state, "ds_version": "0.15"},
        "wrapper in wrapper": lambda state: {"checkpoint": 1, "model": {"state_dict": state}},
    }


_KEYS = ("state_dict", "model", "model_state_dict", "net", "network", "weights", "module")


def _shaken(state: State) -> State:
    return {key: value + 1 if value.is_floating_point() else value for key, value in state.items()}


def _prefixes() -> dict[str, Callable[[State], Any]]:
    prefixes = ("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "backbone.", "encoder.")
    more = ("student.", "model.backbone.", "net.encoder.", "visual.trunk.", "_fsdp_wrapped_module.", "vision_model.")
    return {f"prefix {prefix}": _under(prefix) for prefix in (*prefixes, *more)}


def _beside(name: str) -> dict[str, Callable[[State], Any]]:
    spare = {
        "n_averaged": torch.tensor(5),
        "logit_scale": torch.tensor(4.6),
        "mask_token": torch.zeros(1, 1, 192),
        "loss.weight": torch.ones(3),
    }
    return {
        **{f"with {key}": functools.partial(_with, key, value) for key, value in spare.items()},
        "averaged": lambda state: _under("module.")(state) | {"n_averaged": torch.tensor(5)},
        "pruned": _pruned,
        "with a text tower": lambda state: _under("visual.trunk.")(state) | {"text.proj": torch.randn(4, 4)},
    }


def _pruned(state: State) -> State:
    key = "blocks.0.mlp.fc1.weight"
    return {name: value for name, value in state.items() if name != key} | {
        f"{key}_orig": state[key],
        f"{key}_mask": torch.ones_like(state[key]),
    }


def _numbers() -> dict[str, Callable[[State], Any]]:
    kinds = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}
    return {name: functools.partial(_rounded, kind) for name, kind in kinds.items()}


def _inside(key: str, state: State) -> dict[str, State]:
    return {key: state}


def _with(key: str, value: Tensor, state: State) -> State:
    return state | {key: value}


def _rounded(kind: torch.dtype, state: State) -> State:
    return {key: value.to(kind) for key, value in state.items()}


def _files(name: str) -> dict[str, Make]:
    return {
        "old pickle": _saved(name, dict, _use_new_zipfile_serialization=False),
        "no ending": _renamed(_saved(name, dict), "checkpoint"),
        ".ckpt": _renamed(_saved(name, dict), "last.ckpt"),
        "safetensors": lambda folder: _safetensors(name, folder),
        "safetensors named .bin": _renamed(lambda folder: _safetensors(name, folder), "weights.bin"),
        "hub folder": lambda folder: _hub_folder(name, folder),
        "hub folder, pickled": _hub_pickle(name),
        "safetensors in parts": lambda folder: _parts(name, folder, "model.safetensors"),
        "pickles in parts": lambda folder: _parts(name, folder, "pytorch_model.bin"),
    }


def _renamed(make: Make, name: str) -> Make:
    return lambda folder: make(folder).rename(folder / name)


def _contiguous(state: Mapping[str, Tensor]) -> State:
    return {key: value.contiguous() for key, value in state.items()}


def _safetensors(name: str, folder: Path) -> Path:
    path = folder / "model.safetensors"
    safetensors.torch.save_file(_contiguous(network(name).state_dict()), path)
    return path


def _config(name: str, folder: Path) -> None:
    arguments = {key: value for key, value in SMALL[name].items() if key != "num_classes"}
    written = {"architecture": name, "num_classes": SMALL[name].get("num_classes", 0), "model_args": arguments}
    (folder / "config.json").write_text(json.dumps({**written, "pretrained_cfg": {"mean": [0.5] * 3}}))


def _hub_folder(name: str, folder: Path) -> Path:
    _safetensors(name, folder)
    _config(name, folder)
    return folder


def _hub_pickle(name: str) -> Make:
    def make(folder: Path) -> Path:
        _saved(name, dict)(folder).rename(folder / "pytorch_model.bin")
        _config(name, folder)
        return folder

    return make


def _parts(name: str, folder: Path, whole: str) -> Path:
    state, ending = _contiguous(network(name).state_dict()), whole.rpartition(".")[2]
    places = {key: f"part-{index % 3}.{ending}" for index, key in enumerate(state)}
    for part in sorted(set(places.values())):
        held = {key: value for key, value in state.items() if places[key] == part}
        if ending == "safetensors":
            safetensors.torch.save_file(held, folder / part)
        else:
            torch.save(held, folder / part)
    (folder / f"{whole}.index.json").write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return folder
