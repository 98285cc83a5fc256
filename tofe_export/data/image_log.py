"""Which images a job read and which it left out, with the reason of each: shown at its end, and in its documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tofe_export.documents.images import ImagesRead, LeftOutImage

_NAMED = 5  # on the terminal; the count covers the others
_IN_DOCUMENT = 100


class Reason(StrEnum):
    """Why an image, a file or a folder was left out; the value is what documents say."""

    CORRUPT = "corrupt"
    PERMISSION = "permission"
    TOO_LARGE = "too large"
    TOO_THIN = "too thin"
    DEPTH = "depth"
    TRANSPARENT = "transparent"
    GONE = "gone"
    KIND = "kind"
    HIDDEN = "hidden"
    LOOSE = "loose"
    FOLDER = "folder"
    LINK = "link"
    HELD_OUT = "held out"
    LABEL = "label"


_COUNTED = {
    Reason.CORRUPT: "that cannot be decoded",
    Reason.PERMISSION: "without permission to read",
    Reason.TOO_LARGE: "too large",
    Reason.TOO_THIN: "too long and thin",
    Reason.DEPTH: "of a depth without a known range",
    Reason.TRANSPARENT: "with nothing but transparency",
    Reason.GONE: "not there",
    Reason.HIDDEN: "hidden",
    Reason.LOOSE: "beside the class folders",
    Reason.FOLDER: "unreadable folders",
    Reason.LINK: "links to what is read elsewhere",
    Reason.HELD_OUT: "links to held-out images",
    Reason.LABEL: "without a label that can be read",
}


@dataclass(frozen=True)
class LeftOut:
    """One file or folder: its name, why, and for people what exactly ("" where the reason says it)."""

    name: str
    reason: Reason
    detail: str = ""


@dataclass
class ImageLog:
    """What one job read, what it left out by name, and what else the user should know about these images.

    Every name counts once, however often it was met.
    """

    left_out: dict[str, LeftOut] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _read: set[str] = field(default_factory=set)

    @property
    def read(self) -> int:
        """How many images were read."""
        return len(self._read)

    def add_read(self, names: Iterable[str]) -> None:
        """Notes images that were read."""
        self._read.update(names)

    def leave_out(self, left_out: LeftOut) -> None:
        """Notes one that was not."""
        self.left_out.setdefault(left_out.name, left_out)

    def merge(self, other: ImageLog) -> None:
        """Takes over what another process read and left out."""
        self.add_read(other._read)
        for left_out in other.left_out.values():
            self.leave_out(left_out)
        for text in other.notes:
            self.note(text)

    def note(self, text: str) -> None:
        """A sentence about the images, once."""
        if text not in self.notes:
            self.notes.append(text)

    def lines(self) -> list[str]:
        """See `image_lines`."""
        return image_lines(self.document())

    def document(self) -> ImagesRead:
        """`images` in documents: counts, reasons, and the first hundred names."""
        left_out = list(self.left_out.values())
        return ImagesRead(
            read=self.read,
            left_out=len(left_out),
            reasons=dict(Counter(one.reason.value for one in left_out)),
            kinds=dict(_kinds(left_out)),
            names=tuple(
                LeftOutImage(name=one.name, reason=one.reason.value, detail=one.detail)
                for one in left_out[:_IN_DOCUMENT]
            ),
            notes=tuple(self.notes),
        )


def image_lines(images: ImagesRead) -> list[str]:
    """For the user: how many were read and left out and why, which, and the notes."""
    read = f"Images: {images.read} read"
    if not images.left_out:
        return [f"{read}, none left out.", *images.notes]
    lines = [f"{read}, {images.left_out} left out: {_counted(images.reasons, images.kinds)}."]
    named = _mixed(one for one in images.names if one.reason != Reason.KIND)
    if named:
        shown = ", ".join(f"{one.name} ({one.detail or one.reason})" for one in named[:_NAMED])
        further = images.left_out - images.reasons.get(Reason.KIND, 0) - _NAMED
        lines.append(f"Left out: {shown} and {further} more." if further > 0 else f"Left out: {shown}.")
    return [*lines, *images.notes]


def counted(left_out: Iterable[LeftOut]) -> str:
    """ "2 hidden, 3 .heic, 1 .txt (kinds that are not read)"."""
    items = list(left_out)
    return _counted(Counter(one.reason.value for one in items), _kinds(items))


def _kinds(left_out: Iterable[LeftOut]) -> Counter[str]:
    return Counter(one.detail for one in left_out if one.reason is Reason.KIND)


def _counted(reasons: Mapping[str, int], kinds: Mapping[str, int]) -> str:
    parts = [f"{count} {_COUNTED[Reason(reason)]}" for reason, count in reasons.items() if reason != Reason.KIND]
    ranked = Counter(kinds).most_common()
    endings = [f"{count} {ending}" for ending, count in ranked[:_NAMED]]
    if len(ranked) > _NAMED:
        endings.append(f"{sum(count for _, count in ranked[_NAMED:])} others")
    return ", ".join([*parts, ", ".join(endings) + " (kinds that are not read)"] if endings else parts)


def _mixed(left_out: Iterable[LeftOutImage]) -> list[LeftOutImage]:
    """One of each reason first, then another of each, and so on."""
    ranks: Counter[str] = Counter()
    ranked = []
    for one in left_out:
        ranked.append((ranks[one.reason], one))
        ranks[one.reason] += 1
    return [one for _, one in sorted(ranked, key=lambda pair: pair[0])]
