r"""Texts that come from files, as they can be shown: on the page, and shorter in a chart.

A file can be called anything, and a JSON document can say anything. `shown` is for every text of the page and of a
chart; `short` and `distinct` are for charts, where there is little room.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

# Control characters, line separators, halves of characters, and the marks that turn the direction of what follows.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_ROOM = 24  # characters of a name in a chart


def shown(text: str) -> str:
    r"""`text` without what cannot be seen or written: a line break becomes \n, a byte that is not UTF-8 \xNN."""
    return _UNSEEN.sub(_escape, text)


def short(name: str, room: int = _ROOM) -> str:
    """At most `room` characters of a name: its beginning and its end, which tell the kind of file."""
    name = shown(name) or "(no name)"
    if any(unicodedata.east_asian_width(letter) in "WF" for letter in name):
        room = room * 2 // 3  # such letters are nearly twice as wide
    tail = room // 2 - 1
    return name if len(name) <= room else f"{name[: room - tail - 1]}…{name[-tail:]}"


def distinct(names: Sequence[str], room: int = _ROOM) -> list[str]:
    """Each name as in `short`; names that would then look alike are cut from where they differ, or numbered."""
    cut = [short(name, room) for name in names]
    for text in {text for text in cut if cut.count(text) > 1}:
        alike = [place for place, other in enumerate(cut) if other == text]
        whole = [shown(names[place]) for place in alike]
        same = next((n for n, letters in enumerate(zip(*whole, strict=False)) if len(set(letters)) > 1), 0)
        start = max(0, same - 2)
        for place, name in zip(alike, whole, strict=True):
            cut[place] = short(("…" if start else "") + name[start : start + room - 2], room)
    return [text if cut.count(text) == 1 else f"{text} ({place})" for place, text in enumerate(cut, start=1)]


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if "\udc80" <= character <= "\udcff":  # how Python holds a byte of a file name that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
