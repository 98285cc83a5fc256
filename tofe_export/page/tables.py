"""What every table of the page is: texts, row by row; the template draws all of them alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Toned:
    """A text in a color: "good", "bad", "open", "gain" or "loss"."""

    text: str
    tone: str


@dataclass(frozen=True)
class Row:
    """One row: what the values are of, and in small letters what ran it; `dense` is what others are compared with."""

    name: str
    values: Sequence[str | Toned]
    how: str = ""
    dense: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        label: what it shows, for those who cannot see it.
        head: titles of the columns; a line break in one stays.
        groups: (heading, rows); "" for no heading.
        narrow: it does not take the whole width.
    """

    label: str
    head: Sequence[str]
    groups: Sequence[tuple[str, Sequence[Row]]]
    narrow: bool = False

    @classmethod
    def of(cls, label: str, head: Sequence[str], rows: Sequence[Row], narrow: bool = False) -> Table:
        """A table without headings inside."""
        return cls(label, head, [("", rows)], narrow)
