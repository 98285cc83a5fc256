"""Where the name of an output leads: a file to replace, or something to write into (a device, a FIFO, `-`)."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

from tofe_export.errors import InputError
from tofe_export.files.names import readable

STDOUT = Path("-")
_OWN_DESCRIPTORS = "/proc/self/fd"  # /dev/stdout and /dev/fd lead there
_MOST_LINKS = 40  # as the kernel follows
_NO_FILE = {errno.ELOOP: "its links lead in a circle", errno.ENAMETOOLONG: "its name is too long"}


def reason_of(error: OSError) -> str:
    """Why a path cannot be used, for a message: "its name is too long", or what the system says."""
    return _NO_FILE.get(error.errno or 0) or error.strerror or str(error)


def is_there(path: Path) -> bool:
    """Whether a file or folder lies at `path`.

    Raises:
        InputError: it cannot be told: a name that is too long, links that lead in a circle, a folder not to be entered.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except ValueError:  # a NUL in it, which no name has
        return False
    except OSError as error:
        message = f"{readable(path)} cannot be read: {reason_of(error)}."
        raise InputError(message, "Check the path and its permissions.", code="unreadable", path=path) from error
    return True


def resolved(path: Path) -> Path:
    """`path` without links, as far as they lead anywhere; `Path.resolve` raises where they lead in a circle."""
    return Path(os.path.realpath(path))


def writable(path: Path) -> bool:
    """Whether a write to a file that is there would be allowed, to the rights that this process acts with."""
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def is_stream(target: Path) -> bool:
    """Whether `target` is written into, never replaced: `-`, a device, a FIFO, an open descriptor of this process."""
    if target == STDOUT or own_descriptor(target) is not None:
        return True
    try:
        mode = target.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def real_file(target: Path) -> Path:
    """The file that a link leads to, whether it exists or not; a path that is not a link stays as it is."""
    return resolved(target) if os.path.islink(target) else target  # noqa: PTH114 - Path.is_symlink raises for long names


def send(target: Path, content: bytes) -> None:
    """Writes `content` into what `is_stream`; OSError where it cannot be opened or nobody reads it any more."""
    if target == STDOUT:
        sys.stdout.flush()
        if hasattr(sys.stdout, "buffer"):
            sys.stdout.buffer.write(content)
        else:
            sys.stdout.write(content.decode())
        sys.stdout.flush()
        return
    descriptor = own_descriptor(target)
    if descriptor is None:
        opened = os.open(target, os.O_WRONLY | os.O_CLOEXEC)  # no O_CREAT: a device that left must not become a file
    else:  # through the descriptor itself: opened by name, a redirected file would be written from its beginning
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        opened = os.dup(descriptor)
    with os.fdopen(opened, "wb") as file:
        file.write(content)


def own_descriptor(target: Path) -> int | None:
    """The open descriptor of this process that `target` names, as /dev/stdout and /dev/fd/3 do; None for others."""
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
