"""Checkpoints in safetensors, and the states from which trainings are continued."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator
from pathlib import Path

from tests.hostile.case import FINE, REFUSED, Case
from tests.hostile.checkpoints import Code, Spoil, case_of, of_bytes, put, with_code
from tests.hostile.commands import basic

_RUNS = FINE | REFUSED
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
    for what, content in _HEADERS.items():
        for verb in ("inspect", "onnx"):
            instead = {"model.onnx" if verb == "inspect" else "ck.pth": "ck.safetensors"}
            spoil = of_bytes(lambda _, content=content: content)
            yield case_of(verb, what, spoil, REFUSED, instead=instead, kit=("ck.safetensors",), at="ck.safetensors")
    for what, text in _METADATA.items():
        instead = {"model.onnx": "ck.safetensors"}
        yield case_of(
            "inspect", what, _metadata(text), REFUSED, instead=instead, kit=("ck.safetensors",), at="ck.safetensors"
        )
    yield from _state()


def _state() -> Iterator[Case]:
    """What a training is continued from."""
    for what, spoil in {
        "an empty file": of_bytes(lambda _: b""),
        "cut in half": of_bytes(lambda content: content[: len(content) // 2]),
        "a pickle with code": lambda path: path.write_bytes(pickle.dumps(Code())),
        "a whole state with code": with_code,
        "a phase nobody knows": put("phase", value="dreaming"),
        "a negative epoch": put("epochs_done", value=-5),
        "an epoch that is text": put("epochs_done", value="two"),
        "too many epochs": put("epochs_done", value=10**9),
        "a recipe that is a list": put("recipe", value=[1]),
        "a recipe of other values": put("recipe", "tofe", "lr", value=0.5),
        "a negative step": put("epoch", "steps", value=-1),
        "sums that are text": put("epoch", "sums", value="low"),
        "no optimizer's numbers": put("optimizer", "optimizer", value={}),
        "no optimizer": put("optimizer", value={}),
        "an optimizer that is a list": put("optimizer", value=[1]),
        "weights of another network": put("model", value={"a": 1}),
        "no teacher": put("teacher", value={}),
        "a teacher that is text": put("teacher", value="me"),
        "metrics that are text": put("metrics", value="good"),
        "metrics that are empty": put("metrics", value=[]),
        "metrics of text": put("metrics", value=["good"]),
        "a configuration that is text": put("config", value="vit"),
        "a field nobody knows": put("frobnicate", value=1),
    }.items():
        yield basic(
            "checkpoints",
            "train",
            f"to resume {what}",
            *("--resume", "--dense-epochs", "1", "-o", "run"),
            kit=("run",),
            writes=("run/ckpt.pth", "run/state.pt", "run/metrics.jsonl", "run/steps.jsonl"),
            prepare=lambda work, spoil=spoil: spoil(work / "run" / "state.pt"),
            codes=REFUSED if what not in ("too many epochs", "metrics that are empty") else _RUNS,
        )
        if what in ("cut in half", "a pickle with code", "a teacher that is text", "weights of another network"):
            yield case_of("report", f"the state: {what}", spoil, _RUNS, at="run/state.pt")
    for what, at in {"a folder": "demo/state.pt", "text": "demo/state.pt", "text instead of itself": "demo"}.items():

        def prepare(work: Path, what: str = what, at: str = at) -> None:
            (work / at).parent.mkdir(exist_ok=True)
            if what == "a folder":
                (work / at).mkdir()
            else:
                (work / at).write_text("hello")

        yield basic("checkpoints", "demo", f"{what} to resume", prepare=prepare, codes=REFUSED, seconds=30)
