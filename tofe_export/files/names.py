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
MODEL = "model.onnx"
VERIFY = "verify.json"
BENCH = "bench.json"
PAGE = "report.html"
WEIGHTS = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")
"""Endings of checkpoints, by which one is recognized where a model was wanted."""
DEPLOYED = (".onnx", ".engine")
"""Endings of artifacts; a file with another one is a checkpoint."""
READ_BY_REPORT = (CHECKPOINT, STATE, METRICS, MODEL, VERIFY, BENCH)
# In the source tree recipes lie at the top; in an installed package inside it.
_RECIPES = (Path(__file__).parents[2] / "calibration", Path(__file__).parents[1] / "calibration")


def shipped_recipes() -> dict[str, Path]:
    """Calibration recipes, by name."""
    return {path.stem: path for folder in _RECIPES if folder.is_dir() for path in sorted(folder.glob("*.toml"))}


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
