"""A user without a name or rights: no case runs as root, for what it tries must stay in its sandbox."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

_NOBODY = 54321


def give_away(sandbox: Path) -> None:
    """Makes a user without a name the owner of a sandbox, if this process may."""
    if os.geteuid() == 0:
        sandbox.chmod(0o755)
        for folder, folders, files in os.walk(sandbox):
            for name in (".", *folders, *files):
                os.lchown(Path(folder, name), _NOBODY, _NOBODY)


def become_nobody() -> None:
    """Gives up every right of root but that to read, which Python's own files may need; also after `exec`."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    header = struct.pack("II", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    if libc.capset(header, struct.pack("IIIIII", 4, 4, 4, 0, 0, 0)):  # CAP_DAC_READ_SEARCH alone
        raise OSError(ctypes.get_errno(), "capset")
    libc.prctl(47, 2, 2, 0, 0)  # PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_READ_SEARCH
