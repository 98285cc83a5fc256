"""Files that are called checkpoints: damaged, lying, of another kind, or with code in them."""

from __future__ import annotations

import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.hostile.case import FINE, REFUSED, Case
from tests.hostile.commands import basic
from tests.hostile.judge import CANARY

_RUNS = FINE | REFUSED
Spoil = Callable[[Path], object]
"""Changes the checkpoint at a path."""


def _round() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


class Code:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {CANARY}; touch ../{CANARY}",)


def _document(change: Callable[[dict[str, Any]], object]) -> Spoil:
    """Loads the checkpoint, changes it, saves it."""

    def spoil(path: Path) -> None:
        import torch

        document = torch.load(path, weights_only=True)
        changed = change(document)
        torch.save(document if changed is None else changed, path)

    return spoil


def put(*keys: str, value: Any) -> Spoil:
    def change(document: dict[str, Any]) -> None:
        for key in keys[:-1]:
            document = document[key]
        if value is ...:
            del document[keys[-1]]
        else:
            document[keys[-1]] = value

    return _document(change)


def _weights(change: Callable[[Any], Any], key: str = "vit.head.weight") -> Spoil:
    return _document(lambda document: document["state_dict"].update({key: change(document["state_dict"][key])}))


def of_bytes(change: Callable[[bytes], bytes]) -> Spoil:
    return lambda path: path.write_bytes(change(path.read_bytes()))


def _flipped(content: bytes) -> bytes:
    spoilt = bytearray(content)
    for place in random.Random(0).sample(range(len(spoilt)), 64):
        spoilt[place] ^= 1 << (place % 8)
    return bytes(spoilt)


def _zip(write: Callable[[zipfile.ZipFile], object]) -> Spoil:
    def spoil(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            write(file)

    return spoil


def _bomb(file: zipfile.ZipFile) -> None:
    with file.open("archive/data.pkl", "w") as entry:
        for _ in range(256):
            entry.write(bytes(1 << 20))


def with_code(path: Path) -> None:
    import torch

    torch.save({**torch.load(path, weights_only=True), "metrics": Code()}, path)


def _sparse_tensor(document: dict[str, Any]) -> None:
    document["state_dict"]["vit.head.weight"] = document["state_dict"]["vit.head.weight"].to_sparse()


def _huge_strides(document: dict[str, Any]) -> None:
    import torch

    document["state_dict"]["vit.head.weight"] = torch.zeros(1).expand(2, 1 << 40)


_KERNEL = "embedding/kernel.npy"


def _npy(shape: tuple[int, ...], kind: str = "<f4") -> bytes:
    """The head of a NumPy file, as if an array of this shape followed."""
    head = str({"descr": kind, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head


def _deep(levels: int) -> Any:
    found: Any = []
    for _ in range(levels):
        found = [found]
    return found


def _meta(document: dict[str, Any]) -> None:
    document["state_dict"] = {key: value.to("meta") for key, value in document["state_dict"].items()}


PICKLED: dict[str, Spoil] = {
    "an empty file": of_bytes(lambda _: b""),
    "a single byte": of_bytes(lambda _: b"\x80"),
    "cut in half": of_bytes(lambda content: content[: len(content) // 2]),
    "without its last byte": of_bytes(lambda content: content[:-1]),
    "64 bits flipped": of_bytes(_flipped),
    "something before it": of_bytes(lambda content: b"\n" + content),
    "zeros behind it": of_bytes(lambda content: content + bytes(100_000)),
    "zeros": of_bytes(lambda content: bytes(len(content))),
    "a page of HTML": of_bytes(lambda _: b"<!DOCTYPE html><title>404</title>"),
    "a Git LFS pointer": of_bytes(lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"),
    "a pickle with code": lambda path: path.write_bytes(pickle.dumps({"state_dict": Code()})),
    "a pickle of protocol 0 with code": lambda path: path.write_bytes(pickle.dumps(Code(), protocol=0)),
    "a whole checkpoint with code": with_code,
    "a pickle that never ends": lambda path: path.write_bytes(b"\x80\x02" + b"(" * 200_000),
    "a pickle of a long text": lambda path: path.write_bytes(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62)),
    "a pickle that refers to itself": lambda path: path.write_bytes(pickle.dumps(_round())),
    "a zip file of text": _zip(lambda file: file.writestr("read.me", "hello")),
    "a zip bomb": _zip(_bomb),
    "an empty zip file": _zip(lambda file: None),
    "a NumPy archive of a huge array": _zip(lambda file: file.writestr(_KERNEL, _npy((1 << 40,)))),
    "a NumPy archive of an array that is cut": _zip(lambda file: file.writestr(_KERNEL, _npy((4, 4, 3, 8)))),
    "a NumPy bomb": _zip(lambda file: file.writestr(_KERNEL, _npy((1 << 26,)) + bytes(1 << 28))),
    "a NumPy archive with code": _zip(lambda file: file.writestr(_KERNEL, _npy((1,), "|O") + pickle.dumps(Code()))),
    "an index that leaves its folder": lambda path: path.write_text('{"weight_map": {"a": "../../etc/passwd"}}'),
    "a zip file that leaves its folder": _zip(lambda file: file.writestr("../../" + CANARY, "x")),
    "a list": _document(lambda _: [1, 2, 3]),
    "an empty dictionary": _document(lambda _: {}),
    "no weights": put("state_dict", value=...),
    "weights that are none": put("state_dict", value={"vit.head.weight": "heavy"}),
    "weights that are a list": put("state_dict", value=[1, 2]),
    "keys that are numbers": _document(
        lambda document: {"state_dict": dict(enumerate(document["state_dict"].values()))}
    ),
    "no configuration": put("config", value=...),
    "a configuration that is a text": put("config", value="vit"),
    "a backbone that is none": put("config", "backbone", value="vit_tiny_patch16_225"),
    "a backbone that is a path": put("config", "backbone", value="../../../etc/passwd"),
    "a backbone from a hub": put("config", "backbone", value="hf-hub:nobody/nothing"),
    "a backbone that is a number": put("config", "backbone", value=7),
    "a depth of a million": put("config", "backbone_args", "depth", value=1_000_000),
    "a negative depth": put("config", "backbone_args", "depth", value=-4),
    "a width that is text": put("config", "backbone_args", "embed_dim", value="wide"),
    "a patch of zero": put("config", "backbone_args", "patch_size", value=0),
    "an image of a billion": put("config", "backbone_args", "img_size", value=10**9),
    "an argument nobody knows": put("config", "backbone_args", "frobnicate", value=1),
    "a checkpoint_path of its own": put("config", "backbone_args", "checkpoint_path", value="/etc/passwd"),
    "arguments that are a list": put("config", "backbone_args", value=[1]),
    "stage starts that fall": put("config", "stage_starts", value=[3, 2, 1]),
    "stage starts that are text": put("config", "stage_starts", value="123"),
    "stage starts that are true": put("config", "stage_starts", value=[True, 2, 3]),
    "a selector nobody knows": put("config", "selector", value="oracle"),
    "a selector that is a list": put("config", "selector", value=["mlp"]),
    "an approximator that is a number": put("config", "approximator", value=3),
    "keep ratios that are not numbers": put("keep_ratios", value=[float("nan")] * 3),
    "keep ratios above 1": put("keep_ratios", value=[5.0, 0.1, 0.1]),
    "too many keep ratios": put("keep_ratios", value=[0.5] * 9),
    "keep ratios that are text": put("keep_ratios", value="0.5,0.3,0.2"),
    "an std of zero": put("preprocessing", "std", value=[0.0, 1.0, 1.0]),
    "a mean that is not a number": put("preprocessing", "mean", value=[float("nan"), 0.0, 0.0]),
    "a mean of a thousand numbers": put("preprocessing", "mean", value=[0.5] * 1000),
    "a crop of zero": put("preprocessing", "crop_pct", value=0.0),
    "a crop of 1e-9": put("preprocessing", "crop_pct", value=1e-9),
    "an interpolation nobody knows": put("preprocessing", "interpolation", value="magic"),
    "preprocessing that is null": put("preprocessing", value=None),
    "preprocessing for another size": put("preprocessing", "height", value=64),
    "preprocessing of a huge size": put("preprocessing", "height", value=10**7),
    "a version of the future": put("version", value=99),
    "a version that is text": put("version", value="one"),
    "class names that are numbers": put("classes", value=[1, 2]),
    "too few class names": put("classes", value=["only one"]),
    "weights of another shape": _weights(lambda weight: weight[:, :-1].clone()),
    "weights of whole numbers": _weights(lambda weight: weight.int()),
    "complex weights": _weights(lambda weight: weight.to(dtype=__import__("torch").complex64)),
    "sparse weights": _document(_sparse_tensor),
    "weights without memory": _document(_meta),
    "weights of a tebibyte in one number": _document(_huge_strides),
    "weights in half precision": _weights(lambda weight: weight.half()),
}
WORKING: dict[str, Spoil] = {
    "weights that are not numbers": _weights(lambda weight: weight * float("nan")),
    "infinite weights": _weights(lambda weight: weight * float("inf")),
    "weights of 1e30": _weights(lambda weight: weight * 1e30, "vit.blocks.1.mlp.fc1.weight"),
    "selectors that are not numbers": _weights(lambda weight: weight * float("nan"), "stages.0.selector.out.weight"),
    "weights of zero": _weights(lambda weight: weight * 0),
    "metrics that nest deeply": put("metrics", value={"deep": _deep(400)}),
    "metrics with markup": put("metrics", value={"[red]x[/red]": 1.0, "</script><b>": 2.0}),
    "metrics of huge numbers": put("metrics", value={"val_accuracy": 10**400}),
    "metrics that are not numbers": put("metrics", value={"val_accuracy": float("nan"), "loss": float("inf")}),
    "metrics that are tensors": _document(lambda d: d.update(metrics={"a": d["state_dict"]["vit.head.bias"]})),
    "metrics that are bytes": put("metrics", value={"a": b"\xff\xfe", "b": {1, 2}}),
    "class names that are HTML": put("classes", value=["<script>alert(1)</script>", "$x^$ & \u202eevil"]),
    "the same class names": put("classes", value=["a", "a"]),
    "data that is a text of 100,000 letters": put("data", value="x" * 100_000),
    "data that is a list": put("data", value=[1, 2]),
    "data with surrogates": put("data", value="\udcff\udcfe"),
    "a class name with surrogates": put("classes", value=["\udcff", "light"]),
    "keep ratios of zero": put("keep_ratios", value=[0.0, 0.0, 0.0]),
    "a mean of 1e30": put("preprocessing", "mean", value=[1e30, 0.0, 0.0]),
}
_SOME = (
    *("an empty file", "cut in half", "64 bits flipped", "a whole checkpoint with code", "a zip bomb", "a list"),
    *("no configuration", "a depth of a million", "keep ratios that are not numbers", "weights of another shape"),
    *("weights without memory", "complex weights", "a page of HTML", "an image of a billion"),
    "preprocessing of a huge size",
)
_EXPORTED = ("weights", "infinite", "selectors", "keep ratios", "a class", "data with", "metrics that nest")


def cases() -> Iterator[Case]:
    """All of this family."""
    for what, spoil in PICKLED.items():
        codes = _RUNS if what in _MAYBE else REFUSED
        yield case_of("inspect", what, spoil, codes, instead={"model.onnx": "ck.pth"}, kit=("ck.pth",))
    for what in _SOME:
        codes = _RUNS if what in _MAYBE else REFUSED
        yield case_of("onnx", what, PICKLED[what], codes)
        yield case_of("verify", what, PICKLED[what], REFUSED)
        yield case_of("bench", what, PICKLED[what], codes, instead={"model.onnx": "ck.pth"}, kit=("ck.pth",))
        yield case_of("tune", what, PICKLED[what], codes, at="small.pth")
        yield case_of("train", what, PICKLED[what], _RUNS, "--init", "ck.pth", kit=("ck.pth",))
        yield case_of("report", what, PICKLED[what], _RUNS, at="run/ckpt.pth")
    for what, spoil in WORKING.items():
        yield case_of("inspect", what, spoil, _RUNS, instead={"model.onnx": "ck.pth"}, kit=("ck.pth",))
        yield case_of(
            "inspect",
            f"{what}, as JSON",
            spoil,
            _RUNS,
            "--json",
            "-",
            instead={"model.onnx": "ck.pth"},
            kit=("ck.pth",),
        )
        if what.startswith(_EXPORTED):
            yield case_of("onnx", what, spoil, _RUNS)
            yield case_of("tune", what, spoil, _RUNS, at="small.pth")
        yield case_of("report", what, spoil, _RUNS, at="run/ckpt.pth")


_MAYBE = (
    *("weights in half precision", "weights of whole numbers", "zeros behind it", "64 bits flipped"),
    *("preprocessing for another size", "too few class names", "a mean that is not a number", "a crop of 1e-9"),
    *("stage starts that are true", "an argument nobody knows", "preprocessing that is null", "sparse weights"),
    *("a version that is text", "complex weights", "preprocessing of a huge size"),
)


def case_of(
    verb: str, what: str, spoil: Spoil, codes: frozenset[int], *more: str, at: str = "ck.pth", **changes: object
) -> Case:
    return basic("checkpoints", verb, what, *more, prepare=lambda work: spoil(work / at), codes=codes, **changes)
