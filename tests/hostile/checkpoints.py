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


class _Code:
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


def _put(*keys: str, value: Any) -> Spoil:
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


def _bytes(change: Callable[[bytes], bytes]) -> Spoil:
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


def _with_code(path: Path) -> None:
    import torch

    torch.save({**torch.load(path, weights_only=True), "metrics": _Code()}, path)


def _sparse_tensor(document: dict[str, Any]) -> None:
    document["state_dict"]["vit.head.weight"] = document["state_dict"]["vit.head.weight"].to_sparse()


def _huge_strides(document: dict[str, Any]) -> None:
    import torch

    document["state_dict"]["vit.head.weight"] = torch.zeros(1).expand(2, 1 << 40)


def _deep(levels: int) -> Any:
    found: Any = []
    for _ in range(levels):
        found = [found]
    return found


def _meta(document: dict[str, Any]) -> None:
    document["state_dict"] = {key: value.to("meta") for key, value in document["state_dict"].items()}


PICKLED: dict[str, Spoil] = {
    "an empty file": _bytes(lambda _: b""),
    "a single byte": _bytes(lambda _: b"\x80"),
    "cut in half": _bytes(lambda content: content[: len(content) // 2]),
    "without its last byte": _bytes(lambda content: content[:-1]),
    "64 bits flipped": _bytes(_flipped),
    "something before it": _bytes(lambda content: b"\n" + content),
    "zeros behind it": _bytes(lambda content: content + bytes(100_000)),
    "zeros": _bytes(lambda content: bytes(len(content))),
    "a page of HTML": _bytes(lambda _: b"<!DOCTYPE html><title>404</title>"),
    "a Git LFS pointer": _bytes(lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"),
    "a pickle with code": lambda path: path.write_bytes(pickle.dumps({"state_dict": _Code()})),
    "a pickle of protocol 0 with code": lambda path: path.write_bytes(pickle.dumps(_Code(), protocol=0)),
    "a whole checkpoint with code": _with_code,
    "a pickle that never ends": lambda path: path.write_bytes(b"\x80\x02" + b"(" * 200_000),
    "a pickle of a long text": lambda path: path.write_bytes(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62)),
    "a pickle that refers to itself": lambda path: path.write_bytes(pickle.dumps(_round())),
    "a zip file of text": _zip(lambda file: file.writestr("read.me", "hello")),
    "a zip bomb": _zip(_bomb),
    "an empty zip file": _zip(lambda file: None),
    "a zip file that leaves its folder": _zip(lambda file: file.writestr("../../" + CANARY, "x")),
    "a list": _document(lambda _: [1, 2, 3]),
    "an empty dictionary": _document(lambda _: {}),
    "no weights": _put("state_dict", value=...),
    "weights that are none": _put("state_dict", value={"vit.head.weight": "heavy"}),
    "weights that are a list": _put("state_dict", value=[1, 2]),
    "keys that are numbers": _document(
        lambda document: {"state_dict": dict(enumerate(document["state_dict"].values()))}
    ),
    "no configuration": _put("config", value=...),
    "a configuration that is a text": _put("config", value="vit"),
    "a backbone that is none": _put("config", "backbone", value="vit_tiny_patch16_225"),
    "a backbone that is a path": _put("config", "backbone", value="../../../etc/passwd"),
    "a backbone from a hub": _put("config", "backbone", value="hf-hub:nobody/nothing"),
    "a backbone that is a number": _put("config", "backbone", value=7),
    "a depth of a million": _put("config", "backbone_args", "depth", value=1_000_000),
    "a negative depth": _put("config", "backbone_args", "depth", value=-4),
    "a width that is text": _put("config", "backbone_args", "embed_dim", value="wide"),
    "a patch of zero": _put("config", "backbone_args", "patch_size", value=0),
    "an image of a billion": _put("config", "backbone_args", "img_size", value=10**9),
    "an argument nobody knows": _put("config", "backbone_args", "frobnicate", value=1),
    "a checkpoint_path of its own": _put("config", "backbone_args", "checkpoint_path", value="/etc/passwd"),
    "arguments that are a list": _put("config", "backbone_args", value=[1]),
    "stage starts that fall": _put("config", "stage_starts", value=[3, 2, 1]),
    "stage starts that are text": _put("config", "stage_starts", value="123"),
    "stage starts that are true": _put("config", "stage_starts", value=[True, 2, 3]),
    "a selector nobody knows": _put("config", "selector", value="oracle"),
    "a selector that is a list": _put("config", "selector", value=["mlp"]),
    "an approximator that is a number": _put("config", "approximator", value=3),
    "keep ratios that are not numbers": _put("keep_ratios", value=[float("nan")] * 3),
    "keep ratios above 1": _put("keep_ratios", value=[5.0, 0.1, 0.1]),
    "too many keep ratios": _put("keep_ratios", value=[0.5] * 9),
    "keep ratios that are text": _put("keep_ratios", value="0.5,0.3,0.2"),
    "an std of zero": _put("preprocessing", "std", value=[0.0, 1.0, 1.0]),
    "a mean that is not a number": _put("preprocessing", "mean", value=[float("nan"), 0.0, 0.0]),
    "a mean of a thousand numbers": _put("preprocessing", "mean", value=[0.5] * 1000),
    "a crop of zero": _put("preprocessing", "crop_pct", value=0.0),
    "a crop of 1e-9": _put("preprocessing", "crop_pct", value=1e-9),
    "an interpolation nobody knows": _put("preprocessing", "interpolation", value="magic"),
    "preprocessing that is null": _put("preprocessing", value=None),
    "preprocessing for another size": _put("preprocessing", "height", value=64),
    "preprocessing of a huge size": _put("preprocessing", "height", value=10**7),
    "a version of the future": _put("version", value=99),
    "a version that is text": _put("version", value="one"),
    "class names that are numbers": _put("classes", value=[1, 2]),
    "too few class names": _put("classes", value=["only one"]),
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
    "metrics that nest deeply": _put("metrics", value={"deep": _deep(400)}),
    "metrics with markup": _put("metrics", value={"[red]x[/red]": 1.0, "</script><b>": 2.0}),
    "metrics of huge numbers": _put("metrics", value={"val_accuracy": 10**400}),
    "metrics that are not numbers": _put("metrics", value={"val_accuracy": float("nan"), "loss": float("inf")}),
    "metrics that are tensors": _document(lambda d: d.update(metrics={"a": d["state_dict"]["vit.head.bias"]})),
    "metrics that are bytes": _put("metrics", value={"a": b"\xff\xfe", "b": {1, 2}}),
    "class names that are HTML": _put("classes", value=["<script>alert(1)</script>", "$x^$ & \u202eevil"]),
    "the same class names": _put("classes", value=["a", "a"]),
    "data that is a text of 100,000 letters": _put("data", value="x" * 100_000),
    "data that is a list": _put("data", value=[1, 2]),
    "data with surrogates": _put("data", value="\udcff\udcfe"),
    "a class name with surrogates": _put("classes", value=["\udcff", "light"]),
    "keep ratios of zero": _put("keep_ratios", value=[0.0, 0.0, 0.0]),
    "a mean of 1e30": _put("preprocessing", "mean", value=[1e30, 0.0, 0.0]),
}
_SOME = (
    *("an empty file", "cut in half", "64 bits flipped", "a whole checkpoint with code", "a zip bomb", "a list"),
    *("no configuration", "a depth of a million", "keep ratios that are not numbers", "weights of another shape"),
    *("weights without memory", "complex weights", "a page of HTML", "an image of a billion"),
    "preprocessing of a huge size",
)
_HEADERS: dict[str, bytes] = {
    "a header of 2^63 bytes": struct.pack("<Q", 1 << 63),
    "a header longer than the file": struct.pack("<Q", 10_000) + b"{}",
    "a header that is not JSON": struct.pack("<Q", 4) + b"oops",
    "a header that is a list": struct.pack("<Q", 2) + b"[]",
    "an empty header": struct.pack("<Q", 2) + b"{}",
    "offsets outside the file": struct.pack("<Q", 64)
    + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,9999999]}}'.ljust(64),
    "a shape of 2^60 numbers": struct.pack("<Q", 96)
    + b'{"a":{"dtype":"F32","shape":[1152921504606846976],"data_offsets":[0,4]}}'.ljust(96)
    + bytes(4),
    "a type nobody knows": struct.pack("<Q", 64)
    + b'{"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}'.ljust(64)
    + bytes(4),
    "a header of 2,000 brackets": struct.pack("<Q", 4000) + b"[" * 2000 + b"]" * 2000,
}


def _metadata(text: str) -> Spoil:
    def spoil(path: Path) -> None:
        import safetensors.torch

        path.write_bytes(safetensors.torch.save(safetensors.torch.load_file(path), metadata={"tofe_export": text}))

    return spoil


_METADATA = {
    "metadata that is not JSON": "{",
    "metadata that is a list": "[1]",
    "metadata that is null": "null",
    "metadata that nests 100,000 deep": "[" * 100_000,
    "metadata with a huge number": '{"version": 1e999, "keep_ratios": [1e999]}',
    "metadata with a number of 10,000 digits": '{"version": ' + "9" * 10_000 + "}",
}


def cases() -> Iterator[Case]:
    """All of this family."""
    for what, spoil in PICKLED.items():
        codes = _RUNS if what in _MAYBE else REFUSED
        yield _case("inspect", what, spoil, codes, instead={"model.onnx": "ck.pth"}, kit=("ck.pth",))
    for what in _SOME:
        codes = _RUNS if what in _MAYBE else REFUSED
        yield _case("onnx", what, PICKLED[what], codes)
        yield _case("verify", what, PICKLED[what], REFUSED)
        yield _case("bench", what, PICKLED[what], codes, instead={"model.onnx": "ck.pth"}, kit=("ck.pth",))
        yield _case("train", what, PICKLED[what], _RUNS, "--init", "ck.pth", kit=("ck.pth",))
        yield _case("report", what, PICKLED[what], _RUNS, at="run/ckpt.pth")
    for what, spoil in WORKING.items():
        yield _case("inspect", what, spoil, _RUNS, instead={"model.onnx": "ck.pth"}, kit=("ck.pth",))
        yield _case(
            "inspect", f"{what}, as JSON", spoil, _RUNS, "--json", instead={"model.onnx": "ck.pth"}, kit=("ck.pth",)
        )
        yield _case("onnx", what, spoil, _RUNS)
        yield _case("report", what, spoil, _RUNS, at="run/ckpt.pth")
    for what, content in _HEADERS.items():
        for verb in ("inspect", "onnx"):
            instead = {"model.onnx" if verb == "inspect" else "ck.pth": "ck.safetensors"}
            spoil = _bytes(lambda _, content=content: content)
            yield _case(verb, what, spoil, REFUSED, instead=instead, kit=("ck.safetensors",), at="ck.safetensors")
    for what, text in _METADATA.items():
        instead = {"model.onnx": "ck.safetensors"}
        yield _case(
            "inspect", what, _metadata(text), REFUSED, instead=instead, kit=("ck.safetensors",), at="ck.safetensors"
        )
    yield from _state()


_MAYBE = (
    *("weights in half precision", "weights of whole numbers", "zeros behind it", "64 bits flipped"),
    *("preprocessing for another size", "too few class names", "a mean that is not a number", "a crop of 1e-9"),
    *("stage starts that are true", "an argument nobody knows", "preprocessing that is null", "sparse weights"),
    *("a version that is text", "complex weights", "preprocessing of a huge size"),
)


def _case(
    verb: str, what: str, spoil: Spoil, codes: frozenset[int], *more: str, at: str = "ck.pth", **changes: object
) -> Case:
    return basic("checkpoints", verb, what, *more, prepare=lambda work: spoil(work / at), codes=codes, **changes)


def _state() -> Iterator[Case]:
    """What a training is continued from."""
    for what, spoil in {
        "an empty file": _bytes(lambda _: b""),
        "cut in half": _bytes(lambda content: content[: len(content) // 2]),
        "a pickle with code": lambda path: path.write_bytes(pickle.dumps(_Code())),
        "a whole state with code": _with_code,
        "a phase nobody knows": _put("phase", value="dreaming"),
        "a negative epoch": _put("epochs_done", value=-5),
        "an epoch that is text": _put("epochs_done", value="two"),
        "too many epochs": _put("epochs_done", value=10**9),
        "settings that are a list": _put("settings", value=[1]),
        "no optimizer": _put("optimizer", value={}),
        "an optimizer that is a list": _put("optimizer", value=[1]),
        "weights of another network": _put("model", value={"a": 1}),
        "no teacher": _put("teacher", value={}),
        "a teacher that is text": _put("teacher", value="me"),
        "metrics that are text": _put("metrics", value="good"),
        "metrics that are empty": _put("metrics", value=[]),
        "metrics of text": _put("metrics", value=["good"]),
        "a configuration that is text": _put("config", value="vit"),
        "a field nobody knows": _put("frobnicate", value=1),
    }.items():
        yield basic(
            "checkpoints",
            "train",
            f"to resume {what}",
            *("--resume", "--dense-epochs", "1", "-o", "run"),
            kit=("run",),
            writes=("run/ckpt.pth", "run/state.pt", "run/metrics.jsonl"),
            prepare=lambda work, spoil=spoil: spoil(work / "run" / "state.pt"),
            codes=REFUSED if what not in ("too many epochs", "metrics that are empty") else _RUNS,
        )
        if what in ("cut in half", "a pickle with code", "a teacher that is text", "weights of another network"):
            yield _case("report", f"the state: {what}", spoil, _RUNS, at="run/state.pt")
    for what, at in {"a folder": "demo/state.pt", "text": "demo/state.pt", "text instead of itself": "demo"}.items():

        def prepare(work: Path, what: str = what, at: str = at) -> None:
            (work / at).parent.mkdir(exist_ok=True)
            if what == "a folder":
                (work / at).mkdir()
            else:
                (work / at).write_text("hello")

        yield basic("checkpoints", "demo", f"{what} to resume", prepare=prepare, codes=REFUSED, seconds=30)
