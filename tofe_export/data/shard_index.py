"""The images in the tar shards of WebDataset, by their keys: KEY.jpg and the label in KEY.cls or KEY.json."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tofe_export.data.image_file import endings
from tofe_export.data.image_log import LeftOut, Reason
from tofe_export.data.tar_index import Member, read_index
from tofe_export.errors import InputError
from tofe_export.files.names import readable
from tofe_export.files.reading import parse_json

ABSENT = "without .cls and .json"
_IMAGE, _LABELS = "image", (".cls", ".json")
_LARGEST_IMAGE = 1 << 30  # bytes; as many pixels as are read need no more
_LARGEST_LABEL = 1 << 20  # bytes; a .json may hold more than the label
_KEY = re.compile(r"((?:.*/)?[^./]+)(\.[^/]+)", re.DOTALL)  # WebDataset's: up to the first point of the file's name

Stamp = tuple[Path, int, int]
"""A shard, its bytes, and when it was changed."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image in a shard; where `label` is None, `why` says why."""

    shard: Path
    file: Member
    label: int | None
    why: str

    @property
    def name(self) -> str:
        """SHARD:MEMBER."""
        return _name(self.shard, self.file)

    def content(self) -> bytes:
        """Its bytes. Raises OSError where the shard is no longer what it was."""
        return _content(self.shard, self.file)


@functools.lru_cache(maxsize=1)  # training and held-out images are parts of the same shards
def index_shards(stamps: tuple[Stamp, ...]) -> tuple[tuple[StoredImage, ...], tuple[LeftOut, ...]]:
    """Every image in the shards, in order, and what else is in them.

    Raises:
        InputError: a key that two images have, or see `read_index`.
    """
    images: list[StoredImage] = []
    left_out: list[LeftOut] = []
    shard_of: dict[str, Path] = {}
    for shard, _, _ in stamps:
        files, others = read_index(shard)
        by_key, unknown = _grouped(shard, files)
        left_out += [*others, *unknown]
        for key, of_key in by_key.items():
            image = of_key.pop(_IMAGE, None)
            if image is None:
                left_out += [LeftOut(_name(shard, file), Reason.GONE, "without its image") for file in of_key.values()]
                continue
            other = shard_of.setdefault(key, shard)
            if other != shard:
                raise _twice(shard, _name(shard, image), readable(other))
            if image.size > _LARGEST_IMAGE:
                left_out.append(LeftOut(_name(shard, image), Reason.TOO_LARGE, f"{image.size:,} bytes"))
            else:
                images.append(StoredImage(shard, image, *_label(shard, of_key)))
    return tuple(images), tuple(left_out)


def _grouped(shard: Path, files: list[Member]) -> tuple[dict[str, dict[str, Member]], list[LeftOut]]:
    """The files of each key: its image, .cls and .json; and what is left out, because it is none of these."""
    known = frozenset(endings())
    by_key: dict[str, dict[str, Member]] = {}
    left_out = []
    for file in files:
        name, match = _name(shard, file), _KEY.fullmatch(file.name)
        key, ending = (match[1], match[2].lower()) if match else ("", "")
        if ending not in known and ending not in _LABELS:
            left_out += _unknown(name, file, ending, known)
            continue
        of_key, role = by_key.setdefault(key, {}), _IMAGE if ending in known else ending
        if role in of_key:
            raise _twice(shard, name, _name(shard, of_key[role]))
        of_key[role] = file
    return by_key, left_out


def _twice(shard: Path, name: str, other: str) -> InputError:
    return InputError(
        f"The key of {name} is also in {other}: it may be the same image again, or another.",
        "Write the shards again, each image with a key of its own.",
        code="key-twice",
        path=shard,
        name=name,
    )


def _unknown(name: str, file: Member, ending: str, known: frozenset[str]) -> list[LeftOut]:
    base = Path(file.name).name
    if not base.startswith("."):
        return [LeftOut(name, Reason.KIND, ending or "without an ending")]
    hidden = Path(base).suffix.lower() in known  # ._1.jpg, which macOS adds; .DS_Store is nobody's image
    return [LeftOut(name, Reason.HIDDEN, "hidden")] if hidden else []


def _label(shard: Path, files: Mapping[str, Member]) -> tuple[int | None, str]:
    """The label, or None and the reason in words."""
    ending = next((ending for ending in _LABELS if ending in files), None)
    if ending is None:
        return None, ABSENT
    if files[ending].size > _LARGEST_LABEL:
        return None, f"its {ending} has {files[ending].size:,} bytes"
    label = _number(ending, _content(shard, files[ending]))
    return label, "" if label is not None else f"its {ending} holds no label that is a whole number from 0"


def _number(ending: str, content: bytes) -> int | None:
    if ending == ".cls":
        text = content.strip()
        return int(text) if text.isdigit() and len(text) < 10 else None
    try:
        document = parse_json(content, "", "")
    except InputError:
        return None
    label = document.get("label") if isinstance(document, dict) else None
    return label if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < 10**9 else None


def _name(shard: Path, file: Member) -> str:
    return f"{readable(shard)}:{file.name}"


def _content(shard: Path, file: Member) -> bytes:
    with shard.open("rb") as opened:
        opened.seek(file.offset)
        content = opened.read(file.size)
    if len(content) < file.size:
        raise OSError(f"{readable(shard)} is shorter than it was")
    return content
