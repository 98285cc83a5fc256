"""Where the name of an output leads: a file to replace, or something to write into (a device, a FIFO, `-`)."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

STDOUT = Path("-")
_OWN_DESCRIPTORS = "/proc/self/fd"  # /dev/stdout and /dev/fd lead there
_MOST_LINKS = 40  # as the kernel follows


def is_stream(target: Path) -> bool:
    """Whether `target` is written into, never replaced: `-`, a device, a FIFO, an open descriptor of this process."""
    return target == STDOUT or _own_descriptor(target) is not None or _is_special(target)


def real_file(target: Path) -> Path:
    """The file that a link leads to, whether it exists or not; what is no link stays as it is."""
    return Path(os.path.realpath(target)) if target.is_symlink() else target


def send(target: Path, content: bytes) -> None:
    """Writes `content` into what `is_stream`.

    Raises:
        OSError: it cannot be opened, or nobody reads it any more.
    """
    if target == STDOUT:
        sys.stdout.flush()
        if hasattr(sys.stdout, "buffer"):
            sys.stdout.buffer.write(content)
        else:
            sys.stdout.write(content.decode())
        sys.stdout.flush()
        return
    descriptor = _own_descriptor(target)
    if descriptor is None:
        opened = os.open(target, os.O_WRONLY | os.O_CLOEXEC)  # no O_CREAT: a device that went away is no file
    else:  # through the descriptor itself: opened by name, a redirected file would be written from its beginning
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        opened = os.dup(descriptor)
    with os.fdopen(opened, "wb") as file:
        file.write(content)


def _is_special(target: Path) -> bool:
    try:
        mode = target.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _own_descriptor(target: Path) -> int | None:
    path = os.path.abspath(target)  # noqa: PTH100 - resolving would lose the very links that tell
    own = os.path.realpath(_OWN_DESCRIPTORS)
    for _ in range(_MOST_LINKS):
        folder, name = os.path.split(path)
        folder = os.path.realpath(folder)
        if folder == own and name.isdecimal():
            return int(name)
        if not os.path.islink(path):  # noqa: PTH114
            return None
        path = os.path.join(folder, os.readlink(path))  # noqa: PTH115, PTH118
    return None
