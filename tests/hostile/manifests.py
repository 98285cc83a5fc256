"""Manifests of models that are damaged, lying or stale."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.hostile.case import ANY, FINE, REFUSED, Case
from tests.hostile.commands import basic
from tests.hostile.kit import restamp
from tests.hostile.models import Spoil

_RUNS = FINE | REFUSED


def _json(text: str | bytes) -> Spoil:
    return lambda path: path.write_bytes(text if isinstance(text, bytes) else text.encode())


def _again(change: Callable[[str], str | bytes]) -> Spoil:
    def spoil(path: Path) -> None:
        _json(change(path.read_text()))(path)

    return spoil


def _field(**fields: object) -> Spoil:
    return lambda path: restamp(path.with_name(path.name.removesuffix(".json")), **fields)


def _inner(outer: str, **fields: object) -> Spoil:
    def spoil(path: Path) -> None:
        document = json.loads(path.read_text())
        inner = document[outer] | fields
        document[outer] = {key: value for key, value in inner.items() if value is not ...}
        path.write_text(json.dumps(document))

    return spoil


_NEST = "[" * 100_000
MANIFESTS: dict[str, Spoil] = {
    "that is gone": Path.unlink,
    "that is empty": _json(""),
    "that is text": _json("hello"),
    "that is null": _json("null"),
    "that is a list": _json("[]"),
    "that is an empty object": _json("{}"),
    "in UTF-16": _again(lambda text: text.encode("utf-16")),
    "with a byte order mark": _again(lambda text: b"\xef\xbb\xbf" + text.encode()),
    "with bytes that are not UTF-8": _again(lambda text: text.encode().replace(b'"kind"', b'"k\xffnd"')),
    "cut in half": _again(lambda text: text[: len(text) // 2]),
    "with its keys twice": _again(lambda text: text.rstrip().removesuffix("}") + ',"keep":["x"],"keep":7}'),
    "that nests 100,000 deep": _json('{"schema": ' + _NEST),
    "with a number of 10,000 digits": _again(lambda text: text.replace('"tokens": 16', '"tokens": ' + "9" * 10_000)),
    "with NaN": _again(lambda text: text.replace('"tokens": 16', '"tokens": NaN')),
    "of another schema": _field(schema="tofe-export/manifest/99"),
    "of another file": lambda path: path.write_text(path.read_text().replace('"sha256": "', '"sha256": "0')),
    "without keep": _field(keep=...),
    "with keep null": _field(keep=None),
    "with keep of text": _field(keep=["8", "4", "2"]),
    "with keep of NaN": _field(keep=[float("nan")] * 3),
    "with keep of a million": _field(keep=[10**6] * 3),
    "with negative keep": _field(keep=[-1, 4, 2]),
    "with one keep too few": _field(keep=[8, 4]),
    "with keep of lists": _field(keep=[[8], [4], [2]]),
    "without stages": _field(stages=...),
    "with stages that are text": _field(stages=["one", "two"]),
    "with stages of one number": _field(stages=[[1], [2], [3]]),
    "with stages that are numbers": _field(stages=[1, 2, 3]),
    "with stages far outside": _field(stages=[[100, 200], [200, 300], [300, 400]]),
    "with tokens zero": _field(tokens=0),
    "with tokens true": _field(tokens=True),
    "with GMACs zero": _field(gmacs=0, dense_gmacs=0),
    "with GMACs that are not numbers": _field(gmacs=float("nan"), dense_gmacs=float("inf")),
    "with negative GMACs": _field(gmacs=-1.0),
    "with a precision nobody knows": _field(precision="int3"),
    "with an empty precision": _field(precision=""),
    "with an empty configuration": _field(config={}),
    "with a configuration of others": _field(config={"backbone": "resnet50"}),
    "with a backbone that is null": _inner("config", backbone=None),
    "with arguments that are a list": _inner("config", backbone_args=[1]),
    "with a depth of a million": _inner("config", backbone_args={"depth": 10**6, "img_size": 32, "patch_size": 8}),
    "with an empty source": _field(source={}),
    "with a source of numbers": _field(source={"sha256": 7, "file": 7, "weights_sha256": []}),
    "with empty preprocessing": _field(preprocessing={}),
    "with an std of zero": _inner("preprocessing", std=[0, 0, 0]),
    "with a mean of text": _inner("preprocessing", mean="mean"),
    "with a height of 10^9": _inner("preprocessing", height=10**9),
    "with a height of 1": _inner("preprocessing", height=1),
    "with a height that is text": _inner("preprocessing", height="tall"),
    "with a crop that is not a number": _inner("preprocessing", crop_pct=float("nan")),
    "with a kind that is markup": _field(kind="[bold]engine[/bold]"),
    "with a rearrange nobody knows": _field(rearrange="sometimes"),
    "with unknown fields that nest": _field(extra=json.loads("[" * 200 + "]" * 200), data={"a": 1}),
    "with data that is a list": _field(data=[1]),
    "with operators that are null": _field(operators=None),
    "with options that are null": _field(options=None),
    "without options": _field(options=...),
    "with outputs nobody has": _field(outputs=["features", "dreams"]),
    "with a calibration that is a text": _field(calibration="yes"),
    "with a recognised that is a list": _field(recognised=["ToFe"]),
    "that is a folder": lambda path: (path.unlink(), path.mkdir()),
    "that is a link to itself": lambda path: (path.unlink(), path.symlink_to(path.name)),
    "that is a link to nothing": lambda path: (path.unlink(), path.symlink_to("nowhere.json")),
}
OPTIMIZED: dict[str, Spoil] = {
    "a target nobody knows": _inner("options", target="tflite"),
    "a target that is a list": _inner("options", target=["any"]),
    "a target that is true": _inner("options", target=True),
    "passes that are a list": _inner("options", passes=["inline"]),
    "passes of text": _inner("options", passes={"inline": "many"}),
    "a negative number of passes": _inner("options", passes={"inline": -1}),
    "10^30 passes": _inner("options", passes={"inline": 10**30}),
    "a pass nobody knows": _inner("options", passes={"magic": 3}),
    "8-bit weights that it has not": _inner("options", passes={"weights": 3}),
    "an arithmetic nobody knows": _inner("options", arithmetic="int3"),
    "an arithmetic that is null": _inner("options", arithmetic=None),
    "an arithmetic that it is not for": _inner("options", arithmetic="bf16"),
    "BF16 that it has not": lambda path: (_inner("options", arithmetic="bf16")(path), _field(precision="bf16")(path)),
    "a session that is a list": _inner("options", session=[1]),
    "a session that is null": _inner("options", session=None),
    "0 threads": _inner("options", session={"threads": 0}),
    "10^9 threads": _inner("options", session={"threads": 10**9}),
    "1024 threads": _inner("options", session={"threads": 1024, "spinning": True}),
    "1.5 threads": _inner("options", session={"threads": 1.5}),
    "threads that are true": _inner("options", session={"threads": True}),
    "spinning that is a text": _inner("options", session={"spinning": "yes"}),
    "an arena that is 1": _inner("options", session={"arena": 1}),
    "a parameter nobody knows": _inner("options", session={"turbo": True}),
    "no target": _inner("options", target=None, passes={}),
    "the target any": _inner("options", target="any"),
    "the target ONNX Runtime": _inner("options", target="onnxruntime"),
    "the target OpenVINO": _inner("options", target="openvino"),
    "no checkpoint": _field(checkpoint=None),
}
"""Of a file that was rewritten for a runtime."""
_LYING = tuple(what for what in OPTIMIZED if "target" in what or what in ("no checkpoint", "BF16 that it has not"))
_QUIET = (
    *("that is gone", "that nests 100,000 deep", "with a number of 10,000 digits", "with keep of text", "in UTF-16"),
    *(
        "with keep null",
        "with negative keep",
        "with keep of lists",
        "with stages that are text",
        "with stages far outside",
    ),
    *("with stages that are numbers", "with tokens zero", "with GMACs zero", "with GMACs that are not numbers"),
    *("with a precision nobody knows", "with an empty configuration", "with a backbone that is null"),
    *("with arguments that are a list", "with an empty source", "with a source of numbers", "that is a folder"),
    *("with empty preprocessing", "with a mean of text", "with a height of 10^9", "with a height of 1"),
    *("with data that is a list", "with options that are null", "with outputs nobody has", "with keep of NaN"),
    *("with a calibration that is a text", "with one keep too few", "with unknown fields that nest"),
    "that is a link to itself",
)
_READ_BY = {"verify": _QUIET, "bench": _QUIET, "quantize": _QUIET[::2], "trt": _QUIET[1::2]}


def cases() -> Iterator[Case]:
    """All of this family."""
    for what, spoil in MANIFESTS.items():
        yield _manifest("inspect", what, spoil)
    for verb, told in _READ_BY.items():
        for what in told:
            yield _manifest(verb, what, MANIFESTS[what])
    yield from _of_optimized()
    for what in _QUIET:
        yield basic(
            "models", "report", f"a manifest {what}",
            prepare=lambda work, what=what: MANIFESTS[what](work / "run/model.onnx.json"), codes=_RUNS,
        )  # fmt: skip


def _of_optimized() -> Iterator[Case]:
    for what, spoil in OPTIMIZED.items():
        for verb in ("inspect", "verify", "bench", "predict"):
            yield _manifest(verb, f"with {what}", spoil, "fast.onnx")
            if what in _LYING or "passes" in what or "arithmetic" in what:
                yield _manifest(verb, f"with {what}", spoil, "vino.onnx")
    for what in _LYING:
        for verb in ("optimize", "quantize", "trt", "verify", "bench"):
            yield _manifest(verb, f"with {what}", OPTIMIZED[what], "inlined.onnx")
        yield _manifest("optimize", f"with {what}", OPTIMIZED[what], "fast.onnx", "--weights", "int8")
        yield _manifest("optimize", f"with {what}", OPTIMIZED[what], "vino.onnx", "--for", "openvino")


def _manifest(verb: str, what: str, spoil: Spoil, file: str = "model.onnx", *more: str) -> Case:
    stem = file.removesuffix(".onnx")
    return basic(
        "models",
        verb,
        f"a manifest {what}" if file == "model.onnx" else f"{file} and a manifest {what}",
        *more,
        prepare=lambda work: spoil(work / f"{file}.json"),
        codes=ANY if verb == "trt" else _RUNS | {3} if file != "model.onnx" else _RUNS,
        instead={} if file == "model.onnx" else {"model.onnx": file},
        kit=() if file == "model.onnx" else (file, f"{file}.json"),
        writes=(f"{stem}.*.onnx", f"{stem}.*.onnx.json", f"{stem}.engine*"),
    )
