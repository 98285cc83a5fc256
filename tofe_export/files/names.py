"""How files are called: those of a run, those that come with the program, any of them as text.

Imports nothing heavy: the shell completes names.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

CHECKPOINT = "ckpt.pth"
INDEX = ".index.json"  # behind the name of a checkpoint in several files
HUB_FILES = tuple(
    f"{name}{end}" for end in ("", INDEX) for name in ("model.safetensors", "pytorch_model.bin")
)  # the checkpoint in a folder of a hub
STATE = "state.pt"
METRICS = "metrics.jsonl"
STEPS = "steps.jsonl"
TRACKERS = "trackers.json"
MODEL = "model.onnx"
VERIFY = "verify.json"
BENCH = "bench.json"
PAGE = "report.html"
WEIGHTS = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")
"""Endings of checkpoints, by which one is recognized where a model was wanted."""
BUILT = (".engine", ".pte", ".tflite")
DEPLOYED = (".onnx", *BUILT)
"""Endings of artifacts; a file with another one is a checkpoint."""
READ_BY_REPORT = (CHECKPOINT, STATE, METRICS, STEPS, MODEL, VERIFY, BENCH)
# In the source tree recipes lie at the top; in an installed package inside it.
_TOPS = (Path(__file__).parents[2], Path(__file__).parents[1])


def calibration_recipes() -> dict[str, Path]:
    """Recipes of calibration that come with the program, by name."""
    return _shipped("calibration")


def training_recipes() -> dict[str, Path]:
    """Recipes of training that come with the program, by name."""
    return _shipped("recipes")


def _shipped(folder: str) -> dict[str, Path]:
    return {path.stem: path for top in _TOPS for path in sorted((top / folder).glob("*.toml"))}


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """File names, with as many folders before them as it takes to tell the files apart."""
    resolved = [Path(os.path.realpath(path)) for path in paths]  # `resolve` raises where links lead in a circle
    for depth in range(1, max((len(path.parts) for path in resolved), default=1) + 1):
        names = [readable("/".join(path.parts[-depth:])) for path in resolved]
        if len(set(names)) == len(set(resolved)):
            break
    return names


def readable(name: str | os.PathLike[str]) -> str:
    r"""`name` as text that UTF-8 can hold: each byte of a file name that is not UTF-8 becomes \xNN."""
    try:
        content = os.fsencode(name)
    except UnicodeEncodeError:  # no file's name: half a character, out of a JSON file
        content = os.fspath(name).encode("utf-8", "backslashreplace")
    return content.decode("utf-8", "backslashreplace")


def is_text(name: str | os.PathLike[str]) -> bool:
    """Whether libraries in C++ take the name: they want UTF-8, which a file's name need not be."""
    return readable(name) == os.fspath(name)


def expanded(name: str) -> Path:
    """`name` with ~ and ~USER replaced by the home folder; as it is where there is none."""
    return Path(os.path.expanduser(name))  # noqa: PTH111 - Path.expanduser raises where there is no home
