"""Which images a job read and which it left out, with the reason of each: said at its end, and in its documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

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
}


@dataclass(frozen=True)
class LeftOut:
    """One file or folder: its name, why, and for people what exactly ("" where the reason says it)."""

    name: str
    reason: Reason
    detail: str = ""


@dataclass
class ImageLog:
    """What one job read and left out; every name counts once, however often it was met.

    Attributes:
        left_out: name -> why.
        notes: what else the user should know about these images.
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

    def leave_out(self, found: LeftOut) -> None:
        """Notes one that was not."""
        self.left_out.setdefault(found.name, found)

    def note(self, text: str) -> None:
        """A sentence about the images, once."""
        if text not in self.notes:
            self.notes.append(text)

    def merge(self, other: ImageLog) -> None:
        """Adds what another job noted."""
        self._read |= other._read
        for found in other.left_out.values():
            self.leave_out(found)
        for text in other.notes:
            self.note(text)

    def lines(self) -> list[str]:
        """For the user: how many were read and left out and why, which, and the notes."""
        read = f"Images: {self.read} read"
        if not self.left_out:
            return [f"{read}, none left out.", *self.notes]
        lines = [f"{read}, {len(self.left_out)} left out: {counted(self.left_out.values())}."]
        named = _mixed(found for found in self.left_out.values() if found.reason is not Reason.KIND)
        if named:
            shown = ", ".join(f"{one.name} ({one.detail or one.reason.value})" for one in named[:_NAMED])
            more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
            lines.append(f"Left out: {shown}{more}.")
        return lines + self.notes

    def to_dict(self) -> dict[str, Any]:
        """`images` in documents: counts, reasons, and the first hundred names."""
        found = list(self.left_out.values())
        return {
            "read": self.read,
            "left_out": len(found),
            "reasons": dict(Counter(one.reason.value for one in found)),
            "names": [{"name": one.name, "reason": one.reason.value} for one in found[:_IN_DOCUMENT]],
            "notes": list(self.notes),
        }


def _mixed(left_out: Iterable[LeftOut]) -> list[LeftOut]:
    """One of each reason first, then another of each, and so on."""
    ranks: Counter[Reason] = Counter()
    ranked = []
    for one in left_out:
        ranked.append((ranks[one.reason], one))
        ranks[one.reason] += 1
    return [one for _, one in sorted(ranked, key=lambda pair: pair[0])]


def counted(left_out: Iterable[LeftOut]) -> str:
    """ "2 hidden, 3 .heic, 1 .txt (kinds that are not read)"."""
    found = list(left_out)
    reasons = Counter(one.reason for one in found if one.reason is not Reason.KIND)
    parts = [f"{count} {_COUNTED[reason]}" for reason, count in reasons.items()]
    kinds = Counter(one.detail for one in found if one.reason is Reason.KIND)
    endings = [f"{count} {ending}" for ending, count in kinds.most_common(_NAMED)]
    if len(kinds) > _NAMED:
        endings.append(f"{sum(kinds.values()) - sum(count for _, count in kinds.most_common(_NAMED))} others")
    return ", ".join([*parts, ", ".join(endings) + " (kinds that are not read)"] if endings else parts)
