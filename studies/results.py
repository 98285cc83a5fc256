"""Results: a line of JSON for each finished arm and seed, appended at once, by whichever process finished it."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
Line = dict[str, Any]


def path_of(images: str, folder: Path = RESULTS) -> Path:
    """Where the results of a set are."""
    return folder / f"{images}.jsonl"


def append(path: Path, line: Line) -> None:
    """Adds a line, unless that arm and seed is there already; what a killed process has left of one is cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        there = file.read()
        whole = there[: there.rfind(b"\n") + 1]
        file.truncate(len(whole))
        if all(_key(json.loads(one)) != _key(line) for one in whole.splitlines()):
            file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")


def read(path: Path) -> list[Line]:
    """All lines, without what a killed process has left of one."""
    if not path.exists():
        return []
    texts = path.read_text().splitlines(keepends=True)
    return [json.loads(text) for text in texts if text.endswith("\n")]


def done(path: Path) -> set[tuple[str, int]]:
    """The arms and seeds that are finished."""
    return {_key(line) for line in read(path)}


def _key(line: Line) -> tuple[str, int]:
    return line["arm"], line["seed"]


def hardware_path_of(images: str, folder: Path = RESULTS) -> Path:
    """Where latency and accuracy in runtimes are."""
    return folder / f"{images}-hardware.json"
