"""How long jobs tell how far they are, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Progress = Callable[[str, int, int], None]
"""(what is being done, steps done, steps in all)."""

Note = Callable[[str], None]
"""A sentence about a result, for the user."""

Item = TypeVar("Item")


def silent(task: str, done: int, total: int) -> None:
    """Nobody listens."""


def unheard(sentence: str) -> None:
    """Nobody listens."""


def tracked(items: Iterable[Item], task: str, total: int, progress: Progress) -> Iterator[Item]:
    """`items`, reporting after each."""
    progress(task, 0, total)
    for done, item in enumerate(items, start=1):
        yield item
        progress(task, done, total)
