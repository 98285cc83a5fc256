"""Names of files and folders that are legal and hated."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tests.hostile.case import FINE, REFUSED, Case
from tests.hostile.commands import basic

_RUNS = FINE | REFUSED
NAMES: dict[str, bytes] = {
    "[v2]": b"[v2]",
    "[red]": b"[red]x[bold]",
    ":cat:": b":cat: :smiley:",
    "$x$": b"$x$",
    "half of mathematics": b"$\\frac{1}{",
    "_hidden": b"_hidden",
    "a leading -": b"--help",
    "a leading - and a digit": b"-1",
    "~": b"~",
    "spaces": b" two  spaces ",
    "a line end": b"a\nb",
    "a line end of Windows": b"a\r\nb",
    "control characters": b"\x01\x1b[31m\x07\x7f",
    "quotes": b'it\'s "quoted" `touch CANARY`',
    "a shell's": b"$(touch CANARY);&|<>*?{a,b}",
    "HTML": b"<script>alert(1)<\\script>&amp;",
    "not UTF-8": b"caf\xe9\xff",
    "a lone surrogate": b"\xed\xa0\x80",
    "emoji": "🐈‍⬛".encode(),
    "right to left": "\u202egnp.קט".encode(),
    "combining letters": "e\u0301 é".encode(),
    "zero width": "a\u200b\ufeffb".encode(),
    "a percent": b"%s%n%d {0} {x}",
    "a backslash": b"a\\b\\n",
    "a colon": b"C:",
    "CON": b"CON",
    "dots": b"...",
    "a comma and equals": b"a=1,b=2",
    "a glob of its own": b"[a-z]*",
}
_FOR_ALL = (
    *("[v2]", "[red]", "half of mathematics", "a leading -", "a line end", "quotes", "not UTF-8", "right to left"),
    *("~", "_hidden", "a shell's", "control characters", "a glob of its own"),
)
_LONG = b"n" * 240


def cases() -> Iterator[Case]:
    """All of this family."""
    for what, name in {**NAMES, "240 letters": _LONG}.items():
        everywhere = what in _FOR_ALL or what == "240 letters"
        yield _model("inspect", what, name)
        if everywhere:
            yield _checkpoint(what, name)
            for verb in ("verify", "bench", "optimize", "quantize"):
                yield _model(verb, what, name)
            yield _report(what, name)
            yield _output(what, name)
            yield _data("verify", what, name)
            yield _run(what, name)
        if what in ("[v2]", "not UTF-8", "a leading -", "240 letters"):
            yield _tuning(what, name)
            yield _data("tune", what, name)
            yield _model("trt", what, name)
            yield _data("quantize", what, name)
    yield from _pictures()


def _in(folder: Path, name: bytes) -> Path:
    return folder / os.fsdecode(name)


def _model(verb: str, what: str, name: bytes) -> Case:
    """The model is called so; documents about it lie beside it."""
    file = name + b".onnx"

    def prepare(work: Path) -> None:
        for suffix in ("", ".json"):
            (work / f"model.onnx{suffix}").rename(_in(work, file + suffix.encode()))

    stem = _pattern(name)
    more = {
        "verify": ("--json", "v.json", "--junit", "v.xml"),
        "bench": ("--json", "b.json"),
        "quantize": ("--json", "q.json"),
    }
    case = basic("names", verb, f"a model called {what}", prepare=prepare, codes=_RUNS, writes=(
        "v.json", "v.xml", "b.json", "q.json",
        f"{stem}.int8.onnx*", f"{stem}.onnxruntime.onnx*", f"{stem}.engine*"))  # fmt: skip
    kept = [argument for argument in case.arguments[1:] if argument != "model.onnx"]
    return case.but(arguments=(verb, *kept, *more.get(verb, ()), "--", file))


def _pattern(name: bytes) -> str:
    """A pattern that matches the name alone."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in os.fsdecode(name))


def _checkpoint(what: str, name: bytes) -> Case:
    file = name + b".pth"
    case = basic("names", "onnx", f"a checkpoint called {what}", codes=_RUNS,
                 prepare=lambda work: (work / "ck.pth").rename(_in(work, file)))  # fmt: skip
    return case.but(arguments=("onnx", "-o", "out.onnx", "--data", "images", "--", file))


def _tuning(what: str, name: bytes) -> Case:
    """A checkpoint and the result, both called so."""
    case = basic("names", "tune", f"a checkpoint and a result called {what}", codes=_RUNS,
                 prepare=lambda work: (work / "small.pth").rename(_in(work, name + b".pth")))  # fmt: skip
    kept = [argument for argument in case.arguments[1:] if argument != "small.pth"]
    return case.but(
        arguments=("tune", *kept, b"-o" + name + b".json", "--", name + b".pth"),
        writes=tuple(f"{_pattern(name)}{ending}" for ending in (".json", ".png", ".json.unfinished")),
    )


def _output(what: str, name: bytes) -> Case:
    file = name + b".onnx"
    case = basic("names", "onnx", f"an output called {what}", codes=_RUNS)
    return case.but(
        arguments=("onnx", "ck.pth", "--data", "images", b"-o" + file),
        writes=(f"{_pattern(name)}.onnx", f"{_pattern(name)}.onnx.json"),
    )


def _data(verb: str, what: str, name: bytes) -> Case:
    def prepare(work: Path) -> None:
        (work / "images").rename(_in(work, name))

    case = basic("names", verb, f"a folder of images called {what}", prepare=prepare, codes=_RUNS)
    kept = [argument for argument in case.arguments if argument not in ("--data", "images")]
    return case.but(arguments=(*kept, b"--data=" + name))


def _run(what: str, name: bytes) -> Case:
    """A run in such a folder, trained on classes of such a name."""

    def prepare(work: Path) -> None:
        (work / "images" / "dark").rename(_in(work / "images", name))

    case = basic("names", "train", f"a run and a class called {what}", prepare=prepare, codes=_RUNS)
    kept = [argument for argument in case.arguments if argument not in ("-o", "new")]
    folder = "/home" if name == b"~" else _pattern(name)
    return case.but(arguments=(*kept, b"-o" + name), writes=(folder, f"{folder}/*"))


def _report(what: str, name: bytes) -> Case:
    def prepare(work: Path) -> None:
        (work / "run").rename(_in(work, name))

    case = basic("names", "report", f"a folder called {what}", prepare=prepare, codes=_RUNS)
    return case.but(arguments=("report", "--images", "1", "--", name), writes=(f"{_pattern(name)}/report.html",))


def _pictures() -> Iterator[Case]:
    def prepare(work: Path) -> None:
        for number, name in enumerate([*NAMES.values(), b"n" * 251]):
            source = work / "images" / "dark" / f"{number % 6}.png"
            target = _in(work / "images" / "light", name + b".png")
            target.write_bytes(source.read_bytes() if number % 3 else b"broken")

    for verb, more in (
        ("verify", ("--json", "v.json", "--samples", "100")),
        ("train", ()),
        ("onnx", ("--keep-from", "images")),
        ("report", ("--data", "images", "--images", "50")),
        ("optimize", ()),
        ("tune", ("--samples", "100")),
        ("quantize", ("--json", "q.json")),
    ):
        yield basic("names", verb, "images of every such name, a third broken", *more, prepare=prepare, codes=_RUNS,
                    kit=("images",), writes=("v.json", "q.json"))  # fmt: skip
