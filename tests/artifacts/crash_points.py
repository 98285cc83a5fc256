"""Writes a set again and again, each time in a process that dies at another rename, removal or flush to disk.

`python crash_points.py FOLDER MANIFEST EXISTS BEFORE AFTER`: FOLDER gets a folder for each such step, in order; the
last one is of a run that no step was left to kill.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tofe_export.artifacts.sets import atomic_artifact
from tofe_export.documents.manifest import OnnxManifest

DIED = 86
STEPS = ("replace", "fsync", "unlink")


def write_set(target: Path, manifest: dict[str, Any], content: bytes, data: bytes | None = None) -> None:
    """A set whose manifest tells its content, in `data`."""
    with atomic_artifact(target) as draft:
        name = "" if data is None else draft.write_data(lambda file: file.write(data))
        draft.path.write_bytes(content + name.encode())
        draft.manifest = OnnxManifest.model_validate({**manifest, "data": content.decode()})


def at_step(number: int, act: Callable[[], None]) -> None:
    """Lets `act` happen before the `number`-th step (from 0) of this process."""
    seen = 0

    def instead(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen - 1 == number:
                act()
            return original(*arguments, **named)

        return call

    for name in STEPS:
        setattr(os, name, instead(getattr(os, name)))


def main() -> None:
    folder, manifest, exists = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
    before, after = (None if text == "null" else text.encode() for text in sys.argv[4:6])
    for number in range(100):
        target = folder / f"{number:02}" / "model.onnx"
        if exists:
            write_set(target, manifest, b"old", before)
        process = os.fork()
        if not process:
            at_step(number, lambda: os._exit(DIED))
            write_set(target, manifest, b"new", after)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if code == 0:
            return
        assert code == DIED, code
    raise AssertionError("too many steps")


if __name__ == "__main__":
    main()
