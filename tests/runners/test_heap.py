"""What a closed session leaves is given back to the system."""

import platform
import subprocess
import sys

import pytest

# Pieces of 8 MB that glibc takes from its heap, since it was given back a larger one; the last keeps it from shrinking.
_PIECES = """
import ctypes
from tofe_export.runners.heap import give_back_freed_memory

def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon"))

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.free(libc.malloc(31 << 20))
pieces = [libc.malloc(8 << 20) for _ in range(20)]
for piece in pieces:
    ctypes.memset(piece, 1, 8 << 20)
for piece in pieces[:-1]:
    libc.free(piece)
before = resident()
give_back_freed_memory()
print(before - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps freed memory so")
def test_freed_memory_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", _PIECES], check=True, capture_output=True, text=True)
    assert int(done.stdout) > 19 * 8 * 1024 * 0.95
