"""Where the files in a tar lie, from its headers alone; nothing is unpacked.

`tarfile` stops without an error at a header that it cannot read, follows sizes below zero backwards, and reads what
a header calls its long name, however long. So this module looks at the end of the archive itself, and at each size.
"""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

from tofe_export.data.image_log import LeftOut, Reason
from tofe_export.errors import InputError
from tofe_export.files.names import readable
from tofe_export.files.places import reason_of

_LARGEST_HEADER = 1 << 14  # bytes; a path has at most 4096
_LONGEST_END = 1 << 20  # bytes of zeros; tar fills up its last record, 10 KiB unless told otherwise
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}  # first bytes


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file within a tar: its name there, and where its `size` bytes begin."""

    name: str
    offset: int
    size: int


def read_index(path: Path) -> tuple[list[Member], list[LeftOut]]:
    """The regular files in the tar at `path`, in order, and its other members; folders are neither.

    Raises:
        InputError: compressed, damaged, cut off, or it cannot be read.
    """
    try:
        with _Headers(path) as file:
            _refuse_compressed(path, file)
            return _members(path, file)
    except OSError as error:
        message = f"The shard {readable(path)} cannot be read: {reason_of(error)}."
        raise InputError(message, "Check its permissions.", code="unreadable", path=path) from error
    except InputError:
        raise
    except Exception as error:  # of damaged headers tarfile raises whatever it likes: ReadError, ValueError, ...
        raise _damaged(path, str(error) or type(error).__name__) from error


def compressed_error(path: Path, how: str = "") -> InputError:
    """The error for a shard that is compressed, by a program called `how` if that is known."""
    named = f" ({how})" if how else ""
    return InputError(
        f"The shard {readable(path)} is compressed{named}, so that it cannot be read from any place in it.",
        "Decompress it to a .tar and remove the compressed one; the images in it are compressed already.",
        code="shard-compressed",
        path=path,
    )


class _Headers(io.FileIO):
    """A file of which only headers are read: more at once is what a damaged one claims, and may not fit in memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size) or b""


def _refuse_compressed(path: Path, file: _Headers) -> None:
    start = file.read(max(map(len, _COMPRESSED)))
    file.seek(0)
    for magic, how in _COMPRESSED.items():
        if start.startswith(magic):
            raise compressed_error(path, how)


def _members(path: Path, file: _Headers) -> tuple[list[Member], list[LeftOut]]:
    length = file.seek(0, io.SEEK_END)
    file.seek(0)
    files, left_out = [], []
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined] # it would keep every one
            if member.size < 0 or member.offset_data + member.size > length:
                raise _damaged(path, f"{readable(member.name)} claims {member.size} bytes, which are not there")
            if member.isreg() and not member.issparse():
                files.append(Member(readable(member.name), member.offset_data, member.size))
            elif not member.isdir():
                name = f"{readable(path)}:{readable(member.name)}"
                left_out.append(LeftOut(name, Reason.KIND, "link or special file in a tar"))
        file.seek(tar.offset)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or block.strip(b"\0"):
        raise _damaged(path, "the mark of its end is missing")
    _require_nothing_behind(path, file, length)
    return files, left_out


def _require_nothing_behind(path: Path, file: _Headers, length: int) -> None:
    left = length - file.tell()
    if left <= _LONGEST_END:
        while block := file.read(_LARGEST_HEADER):
            if block.strip(b"\0"):
                break
        else:
            return
    raise _damaged(path, f"{left} bytes follow its end")


def _damaged(path: Path, why: str) -> InputError:
    return InputError(
        f"The shard {readable(path)} is not a whole tar: {readable(why)}.",
        "Copy or write it again, or remove it.",
        code="shard-damaged",
        path=path,
    )
