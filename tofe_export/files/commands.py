"""Commands as the user can type them."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

_UNTYPABLE = re.compile("[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\udc80-\udcff]")


def command(*words: str | Path) -> str:
    r"""`tofe-export WORDS`, quoted for the shell.

    A path that begins with a dash is written ./-name, for it would be taken for an option; characters that cannot be
    typed are written as $'\x1b', which bash, zsh and ksh understand.
    """
    return " ".join(["tofe-export", *map(quoted, words)])


def quoted(word: str | Path) -> str:
    """One word of a command; see `command`."""
    text = os.fspath(word)
    if isinstance(word, Path) and text.startswith("-"):
        text = f"./{text}"
    if not _UNTYPABLE.search(text):
        return shlex.quote(text)
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{_UNTYPABLE.sub(_bytes_of, escaped)}'"


def _bytes_of(found: re.Match[str]) -> str:
    return "".join(f"\\x{byte:02x}" for byte in found[0].encode("utf-8", "surrogateescape"))
