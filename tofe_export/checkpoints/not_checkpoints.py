"""Files that are not checkpoints: what they are, by their first bytes, and what to do about that."""

from __future__ import annotations

import contextlib
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path

from tofe_export.errors import InputError
from tofe_export.files.names import DEPLOYED

_ADDRESS = re.compile(r"(?:https?|ftp|s3|gs|hf):/")  # in a path, one of two slashes is gone
_HEAD = 512  # bytes that tell
_PLAIN = "torch.save(model.state_dict(), ...)"
_BY_FIRST_BYTES: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself", "Fetch the file: git lfs pull"),
    (b"\x1f\x8b", "compressed with gzip", "Unpack it first: gunzip, or tar -xzf."),
    (b"BZh", "compressed with bzip2", "Unpack it first: bunzip2, or tar -xjf."),
    (b"\xfd7zXZ", "compressed with xz", "Unpack it first: unxz, or tar -xJf."),
    (b"\x28\xb5\x2f\xfd", "compressed with Zstandard", "Unpack it first: unzstd."),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it first."),
    (b"\x89HDF", "an HDF5 file, as Keras writes them", "Load it there, and save its weights under timm's names."),
    (b"GGUF", "a GGUF file", "Name the .safetensors or .pth file that it was made of."),
    (b"\x93NUMPY", "a single NumPy array", f"Name a whole network's file: {_PLAIN}"),
    (b"\x89PNG", "a picture", "Name a .pth or .safetensors file."),
    (b"\xff\xd8\xff", "a picture", "Name a .pth or .safetensors file."),
)
_PAGES = (b"<!doctype html", b"<html", b"<?xml")
_SHARDS = b'"weight_map"'


def require_local(path: Path) -> None:
    """Raises InputError for an address in place of a file."""
    address = str(path)
    if not _ADDRESS.match(address):
        return
    raise InputError(
        f"{path} is an address; what is needed here is a file on this machine.",
        "Download it, and name the file.",
        code="address",
        path=path,
    )


def is_safetensors(path: Path) -> bool:
    """Whether the file begins as safetensors do, whatever its name: the length of a header, then JSON."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        head = file.read(9)
        length = int.from_bytes(head[:8], "little")
        if head[8:] == b"{" and 2 <= length <= path.stat().st_size - 8:
            return True
    return path.suffix == ".safetensors" and not _starts_like_torchs(path)


def is_numpy_archive(path: Path) -> bool:
    """Whether the file is a ZIP archive of nothing but NumPy arrays."""
    names = _names_in(path) or []
    return bool(names) and all(name.endswith(".npy") for name in names)


def refusal(path: Path) -> InputError:
    """What to say of a file that could not be read as a checkpoint."""
    if path.suffix in DEPLOYED:
        return InputError(
            f"{path} is named as an exported model is; what is needed here is a checkpoint.",
            "Name the checkpoint it came from; its manifest says which.",
            code="artifact-as-checkpoint",
            path=path,
        )
    known = _told_by_first_bytes(path) or _told_by_archive(path)
    if known is not None:
        what, next_step = known
        return InputError(f"{path} is {what}, not a checkpoint.", next_step, code="not-a-checkpoint", path=path)
    return InputError(
        f"{path} is not a checkpoint, or it is damaged or truncated.",
        "Name a .pth or .safetensors file. If it is one, copy it again and compare its size with the original.",
        code="not-a-checkpoint",
        path=path,
    )


def _starts_like_torchs(path: Path) -> bool:
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(2) in (b"PK", b"\x80\x02")
    return False


def _told_by_first_bytes(path: Path) -> tuple[str, str] | None:
    head = b""
    with contextlib.suppress(OSError), path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        return "empty", "Copy it again, or save it again."
    known = next((told for start, *told in _BY_FIRST_BYTES if head.startswith(start)), None)
    if known is not None:
        return known[0], known[1]
    if head[257:262] == b"ustar":
        return "a tar archive", "Unpack it first: tar -xf."
    return _told_by_text(head.lstrip(b"\xef\xbb\xbf \t\r\n").lower())


def _told_by_text(text: bytes) -> tuple[str, str] | None:
    if text.startswith(_PAGES):
        return "a web page", "The address led to a page about the file: download the file itself (raw, or resolve)."
    if text.startswith(b"{") and (_SHARDS in text or b"total_size" in text):
        return "the index of a checkpoint in several files", "Its name must end in .index.json, as it was published."
    return ("a JSON file", "Name the file of weights that it belongs to.") if text.startswith(b"{") else None


def _told_by_archive(path: Path) -> tuple[str, str] | None:
    """Of a ZIP archive; PyTorch's own files are such too."""
    names = _names_in(path)
    if names is None:
        return None
    if _any_ends(names, "/constants.pkl"):
        return "a TorchScript program", f"Save its weights: model = torch.jit.load(...); {_PLAIN}"
    if _any_ends(names, "/archive_format", "/archive_version"):
        return "an exported PyTorch program (.pt2)", f"Save the weights of the module that it was made of: {_PLAIN}"
    if names and all(name.endswith(".npy") for name in names):
        return "a NumPy archive with arrays that cannot be read", "Copy it again."
    return None if _any_ends(names, "data.pkl") else ("a ZIP archive", "Unpack it first: unzip.")


def _names_in(path: Path) -> list[str] | None:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return None


def _any_ends(names: Iterable[str], *endings: str) -> bool:
    return any(name.endswith(endings) for name in names)
