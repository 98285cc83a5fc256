"""Files that are being written: hidden beside their target, locked while their writer lives, swept away after it.

The lock (`flock`) tells a live writer from a dead one in every PID namespace. Where a file system or a platform has no
such locks, nothing is swept.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_NOT_SYNCED = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EISDIR)  # file systems that cannot


@contextlib.contextmanager
def part_of(target: Path) -> Iterator[Path]:
    """Yields an empty, locked file beside `target`, to be renamed; what is still there at the end is removed.

    It has the mode and the owner of `target` where that exists, so that a replaced file keeps them.

    Raises:
        OSError: the folder is not there or cannot be written.
    """
    handle, path = _locked_file(target)
    try:
        _like(path, target)
        if fcntl is None:
            os.close(handle)  # Windows renames no open file
            handle = -1
        yield path
    finally:
        with contextlib.suppress(OSError):  # renamed, or litter for the next run; no reason to fail after the work
            path.unlink()
        if handle >= 0:
            os.close(handle)


def sweep(target: Path) -> None:
    """Removes what killed runs left of the same target; a live run keeps its own."""
    ours = re.compile(rf"\.{re.escape(target.name)}\.\d+-[a-z0-9_]{{8}}\.part")  # as `tempfile` names them
    for left in target.parent.glob(f".{glob.escape(target.name)}.*-*.part"):
        if ours.fullmatch(left.name):
            remove_if_left(left)


def remove_if_left(path: Path, needed: Callable[[], bool] = lambda: False) -> None:
    """Removes `path` unless a live process holds its lock, nobody can tell, or it is `needed` (asked once locked)."""
    handle = lock_of(path, os.O_RDWR | os.O_NONBLOCK)
    if handle is None:
        return
    with contextlib.suppress(OSError):
        # Its writer may have renamed it in the meantime: then the name is gone, or somebody else's.
        if os.path.samestat(os.fstat(handle), path.lstat()) and not needed():
            path.unlink()
    os.close(handle)


def lock_of(path: Path, how: int = os.O_RDONLY) -> int | None:
    """A handle that holds the lock of a file or folder; None where somebody else does, or where nobody can tell."""
    if fcntl is None:
        return None
    try:
        handle = os.open(path, how | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Waits until no other process that asks for it is in the same folder; without locks here it waits for nobody."""
    handle = -1
    with contextlib.suppress(OSError):
        if fcntl is not None:
            handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if handle >= 0:
            os.close(handle)


def sync(path: Path) -> None:
    """Flushes a file's content to disk."""
    with path.open("rb+") as written:
        os.fsync(written.fileno())


def sync_folder(folder: Path) -> None:
    """Flushes a folder's names to disk, where the platform can.

    Raises:
        OSError: the disk is full or fails.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # a folder that cannot be read, or Windows
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NOT_SYNCED:
            raise
    finally:
        os.close(handle)


def _locked_file(target: Path) -> tuple[int, Path]:
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.{os.getpid()}-", suffix=".part", dir=target.parent)
        try:
            if fcntl is not None:
                fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # no locks here; then nobody sweeps either
            return handle, Path(name)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.lstat(name)):
                return handle, Path(name)
        os.close(handle)  # a sweeper came between the two calls and removed it


def _like(path: Path, target: Path) -> None:
    try:
        known = target.stat()
    except FileNotFoundError:
        mask = os.umask(0o077)  # it can be read only by setting it
        os.umask(mask)
        path.chmod(0o666 & ~mask)
        return
    mine = path.stat()
    if (known.st_uid, known.st_gid) != (mine.st_uid, mine.st_gid):  # all are 0 on Windows
        with contextlib.suppress(OSError):  # only root may give files away
            os.chown(path, known.st_uid, known.st_gid)
    path.chmod(known.st_mode & 0o777)
