"""The next step after an error with the command to type, by its code; other errors say in words what to do."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tofe_export.files.commands import command, quoted
from tofe_export.files.names import WEIGHTS
from tofe_export.training import torchrun

Details = Mapping[str, object]


def _path(details: Details, default: str, name: str = "path") -> Path:
    return Path(str(details.get(name, default)))


def _prune(how: str, details: Details) -> str:
    backbone = str(details.get("backbone", ""))
    named = ("--backbone", backbone) if backbone else ()
    train = command("train", "--init", _path(details, "CKPT"), *named, "--data", "FOLDER", "-o", "RUN")
    return f"Prune {how}: --selector cls-attention, or fine-tune it: {train}"


def _made_again(details: Details) -> str:
    path = _path(details, "model.onnx")
    if path.suffix == ".engine":
        return f"Build it again: {command('trt', 'MODEL.onnx', '-o', path)}"
    if path.suffix in (".pte", ".tflite"):
        return f"Package it again: {_packaged(details)}"
    return f"Export it again: {command('onnx', 'CKPT', '-o', path if path.suffix == '.onnx' else Path('model.onnx'))}"


def _packaged(details: Details) -> str:
    """The command that makes a program for phones anew."""
    path, source = _path(details, "model.pte"), _path(details, "MODEL.onnx", "source")
    checkpoint = ("--checkpoint", _path(details, "CKPT", "checkpoint"))
    as_before = ("--int8",) if details.get("precision") == "int8" else ()
    if path.suffix == ".pte":
        return command("package", source, "--for", "executorch", *checkpoint, *as_before, "-o", path)
    return command("package", source, "--for", "litert", *checkpoint, *as_before, "-o", path)


def _not_onnx(details: Details) -> str:
    path = _path(details, "model.onnx")
    return f"First type: {command('onnx', path)}" if path.suffix in WEIGHTS else _made_again(details)


def _manifest_missing(details: Details) -> str:
    name = _path(details, "model.onnx").name
    return f"It travels beside {name}; copy it along. {_made_again(details)}"


def _engine(details: Details) -> str:
    """The command that builds an engine anew: in its precision, for its batch sizes."""
    options = details.get("options")
    precision, batch = str(getattr(options, "precision", "fp32")), getattr(options, "batch", None)
    return command(
        *("trt", _path(details, "MODEL.onnx", "source"), "-o", _path(details, "model.engine")),
        *(() if precision == "fp32" else (f"--{precision}",)),
        *(() if batch is None else ("--batch", str(batch))),
    )


def _with_onnx_ending(details: Details) -> str:
    path = _path(details, "model")
    named = path.with_suffix(".onnx") if path.suffix in WEIGHTS else path.with_name(f"{path.name}.onnx")
    return f"Write -o {quoted(path / 'model.onnx' if path.is_dir() else named)}"


def _same_command(*more: str) -> str:
    """What was typed, with these options unless they are there; "" where this process was not started by typing."""
    typed = sys.argv[1:]
    if typed[:1] not in (["train"], ["demo"]):
        return ""
    if torchrun.started():
        return "the same torchrun command" + "".join(f" with {option} at its end" for option in more)
    return command(*typed, *(option for option in more if option not in typed))


def _goes_on(details: Details) -> str:
    """The demo goes on with what it finds; training has an option for that."""
    again = _same_command(*(() if sys.argv[1:2] == ["demo"] else ("--resume",)))
    return f"Continue it: {again or 'type the same command with --resume'}"


def _begins_again(details: Details) -> str:
    return f"Start again: {_same_command() or 'type the same command'}"


STEPS: dict[str, Callable[[Details], str]] = {
    "no-checkpoint": lambda details: f"Check the path, or make one to try: {command('demo', '-o', 'RUN')}",
    "keeps-every-token": functools.partial(_prune, "it as EViT does"),
    "no-predictors": functools.partial(_prune, "without training"),
    "not-onnx": _not_onnx,
    "onnxruntime-refuses": _made_again,
    "no-inputs-or-outputs": _made_again,
    "external-data-outside": _made_again,
    "manifest-hash": _made_again,
    "manifest-missing": _manifest_missing,
    "checkpoint-as-artifact": lambda details: f"Export it first: {command('onnx', _path(details, 'CKPT'))}",
    "artifact-as-checkpoint": lambda details: (
        f"Name the checkpoint it came from. This shows which: {command('inspect', _path(details, 'model.onnx'))}"
    ),
    "tensorrt-needs-no-other-file": lambda details: f"Build an engine from it: {command('trt', _path(details, 'x'))}",
    "optimized-already": lambda details: f"Start from the file it was made of: {_path(details, 'source', 'source')}",
    "tuning-of-another": lambda details: f"Tune this checkpoint: {command('tune', 'CKPT', '--speedup', '2')}",
    "engine-version": lambda details: f"Build it again: {_engine(details)}",
    "engine-gpu": lambda details: f"Build it here: {_engine(details)}",
    "program-without-taps": lambda details: f"Package it again: {_packaged(details)} --taps",
    "engine-without-taps": lambda details: f"Build it again: {_engine(details)} --taps",
    "no-logits": lambda details: f"Export it again: {command('onnx', 'CKPT', '--outputs', 'features,logits')}",
    "baseline-empty": lambda details: f"Record one: {command('bench', 'model.onnx', '--json', 'baseline.json')}",
    "write-protected": lambda details: (
        f"Type: chmod u+w {quoted(_path(details, 'FILE'))}, or choose another place for it."
    ),
    "not-onnx-name": _with_onnx_ending,
    "engine-named-onnx": lambda details: "Write -o model.engine",
    "cache-not-writable": lambda details: "Name another calibration file with --cache.",
    **dict.fromkeys(
        ("not-calibration", "calibration-of-another"),
        lambda details: f"Delete {details.get('path', 'it')}, or name another file with --cache.",
    ),
    "no-run": lambda details: f"Make a run first: {command('demo', '-o', _path(details, 'RUN'))}",
    "run-not-a-folder": lambda details: f"Type: {command('report', _path(details, 'RUN/file').parent)}",
    "run-exists": lambda details: "Continue it: add --resume to the command; or choose another folder with -o.",
    "run-finished": lambda details: "Choose another folder with -o.",
    "resumed-with-other-settings": lambda details: "Resume with the same settings, or start another run with -o.",
    "stopped": _goes_on,
    "stopped-before-saving": _begins_again,
    "training-state": lambda details: "Start again in another folder with -o, or remove this one.",
}
