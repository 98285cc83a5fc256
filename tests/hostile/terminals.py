"""Standard streams that are closed, full or gone; terminals that are too small; Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

from tests.hostile.case import ANY, Case, Surroundings
from tests.hostile.commands import basic

_TALKERS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    # name -> verb, more arguments, what it must write whatever becomes of its words
    "doctor": ("doctor", (), ()),
    "doctor --json -": ("doctor", ("--json", "-"), ()),
    "inspect": ("inspect", (), ()),
    "inspect --json": ("inspect", ("--json", "i.json"), ("i.json",)),
    "verify": ("verify", ("--json", "v.json", "--junit", "v.xml"), ("v.json", "v.xml")),
    "bench": ("bench", ("--json", "b.json"), ("b.json",)),
    "quantize": ("quantize", ("--json", "q.json"), ("q.json", "model.int8.onnx", "model.int8.onnx.json")),
    "onnx": ("onnx", (), ("out.onnx", "out.onnx.json")),
    "optimize": ("optimize", (), ("model.onnxruntime.onnx", "model.onnxruntime.onnx.json")),
    "tune": ("tune", (), ("tune.json", "tune.png")),
    "train": ("train", (), ("new/ckpt.pth",)),
    "report": ("report", (), ("run/report.html",)),
    "trt": ("trt", (), ("model.engine", "model.engine.json")),
}
_STREAMS: dict[str, dict[str, str]] = {
    "stdout closed": {"stdout": "closed"},
    "stderr closed": {"stderr": "closed"},
    "every stream closed": {"stdin": "closed", "stdout": "closed", "stderr": "closed"},
    "stdout into a pipe nobody reads": {"stdout": "pipe"},
    "stderr into a pipe nobody reads": {"stderr": "pipe"},
    "both into a pipe nobody reads": {"stdout": "pipe", "stderr": "pipe"},
    "stdout on a full disk": {"stdout": "full"},
    "stderr on a full disk": {"stderr": "full"},
    "a terminal that is gone": {"stdin": "gone", "stdout": "gone", "stderr": "gone"},
}
_ENCODINGS = (
    "ascii",
    "ascii:strict",
    "latin-1",
    "cp437",
    "utf-16",
    "utf-8:surrogateescape",
    ":replace",
    "cp1252:ignore",
)
_SIZES = ((0, 0), (1, 1), (2, 3), (65535, 65535), (24, 10))
_VARIABLES: dict[str, dict[str, str | None]] = {
    "COLUMNS 0": {"COLUMNS": "0"},
    "COLUMNS 1": {"COLUMNS": "1"},
    "COLUMNS -5": {"COLUMNS": "-5"},
    "COLUMNS garbage": {"COLUMNS": "wide", "LINES": "tall"},
    "COLUMNS of 10 digits": {"COLUMNS": "9999999999"},
    "COLUMNS of superscripts": {"COLUMNS": "²"},
    "TERMINAL_WIDTH garbage": {"TERMINAL_WIDTH": "wide"},
    "TERM dumb": {"TERM": "dumb", "NO_COLOR": "1"},
    "TERM garbage": {"TERM": "\x1b[31m"},
    "FORCE_COLOR on a pipe": {"FORCE_COLOR": "1", "PYTHONIOENCODING": "ascii"},
    "TTY_COMPATIBLE on a pipe": {"TTY_COMPATIBLE": "1"},
}


def cases() -> Iterator[Case]:
    """All of this family."""
    for name, (verb, more, promised) in _TALKERS.items():
        for what, streams in _STREAMS.items():
            if verb == "trt" and what not in ("stdout closed", "every stream closed", "a terminal that is gone"):
                continue
            yield _talk(verb, f"{name}, {what}", more, promised, Surroundings(**streams))
        for encoding in _ENCODINGS[: 8 if verb in ("verify", "doctor") else 2]:
            around = Surroundings(environment={"PYTHONIOENCODING": encoding})
            if verb != "trt":
                yield _talk(verb, f"{name}, PYTHONIOENCODING {encoding}", more, promised, around)
    for verb in ("doctor", "inspect", "verify", "train"):
        for size in _SIZES:
            around = Surroundings(stdin="terminal", stdout="terminal", stderr="terminal", size=size)
            yield basic("terminals", verb, f"a terminal of {size[0]} x {size[1]}", around=around, codes=ANY)
        for what, environment in _VARIABLES.items():
            if verb in ("inspect", "verify"):
                yield basic("terminals", verb, what, around=Surroundings(environment=environment), codes=ANY)
    for what, environment in _VARIABLES.items():
        around = Surroundings(environment=environment)
        yield Case("terminals", "onnx", f"help, {what}", ("onnx", "--help"), around=around, codes=frozenset({0}))
        yield Case(
            "terminals", "bench", f"a usage error, {what}", ("bench", "--x"), around=around, codes=frozenset({2})
        )
    yield from _from_scratch()
    yield from _interrupts()


def _talk(verb: str, what: str, more: tuple[str, ...], promised: tuple[str, ...], around: Surroundings) -> Case:
    def written(work: Path, _: str) -> Iterator[str]:
        for name in promised:
            if not (work / name).exists() or not (work / name).stat().st_size:
                yield f"{name} was not written"

    own = tuple(name for name in promised if name.endswith((".json", ".xml")))
    return basic("terminals", verb, what, *more, around=around, codes=ANY, check=written, writes=own)


def _from_scratch() -> Iterator[Case]:
    """The interpreter itself opens and flushes these streams."""
    for arguments in (("--help",), ("--version",), (), ("doctor", "--json", "-"), ("inspect", "nowhere.onnx")):
        for what in ("every stream closed", "stdout into a pipe nobody reads", "stdout on a full disk"):
            yield Case(
                "terminals", arguments[0] if arguments and arguments[0][0] != "-" else "doctor",
                f"{' '.join(arguments) or 'nothing'}, from scratch, {what}", arguments,
                around=Surroundings(**_STREAMS[what]), real=True, codes=ANY,
            )  # fmt: skip
    for verb, name in (("verify", "v.json"), ("inspect", "")):
        more = ("--json", name) if name else ()
        around = Surroundings(environment={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
        yield _talk(verb, f"{verb}, from scratch, ascii", more, (name,) if name else (), around).but(real=True)


def _interrupts() -> Iterator[Case]:
    """Ctrl-C when a file appears or at once: 130, and the result of an earlier run is there as it was."""
    model, engine, report = ("model.onnx", "model.onnx.json"), ("model.engine", "model.engine.json"), ("verify.json",)
    for verb, when, old in (
        ("onnx", ".out.onnx.*.part", [f"{name}>out{name.removeprefix('model')}" for name in model]),
        (
            "optimize",
            ".model.onnxruntime.onnx.*.part",
            [f"{name}>model.onnxruntime{name.removeprefix('model')}" for name in model],
        ),
        ("tune", "tune.json.unfinished", ("tune.json",)),
        ("tune", "", ("tune.json",)),
        ("optimize", "", ()),
        ("quantize", ".model.int8.onnx.*.part", [f"{name}>model.int8{name.removeprefix('model')}" for name in model]),
        ("trt", ".model.engine.*.part", engine),
        ("train", "new/state.pt", ()),
        ("train", "", ()),
        ("verify", "", report),
        ("bench", "", ()),
        ("report", "", ()),
        ("doctor", "", ()),
        ("onnx", "", ()),
    ):
        around = Surroundings(signal=signal.SIGINT, signal_when=when)
        yield basic("terminals", verb, f"Ctrl-C {'when ' + when + ' appears' if when else 'at once'}", around=around,
                    kit=tuple(old), codes=frozenset({0, 130}))  # fmt: skip
