"""The user's terminal, however it is set up: streams that are closed, full or not UTF-8, and libraries that talk."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import logging
import os
import re
import select
import sys
import warnings

_LOOKALIKES = str.maketrans(
    {
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212\u2500\u2501\u2550", "-"),
        **dict.fromkeys("│┃║", "|"),
        **dict.fromkeys("┌┐└┘├┤┬┴┼┏┓┗┛┡┩┢┪┳┻╇╈╡╞╪╭╮╯╰╸╺╶╴", "+"),
        **dict.fromkeys("\u2018\u2019", "'"),
        **dict.fromkeys("\u201c\u201d", '"'),
        **dict.fromkeys("\u03bc\u00b5", "u"),
        **{"·": ".", "•": "*", "×": "x", "…": "...", "≥": ">=", "≤": "<=", "≠": "!=", "±": "+/-", "→": "->"},
        **{"\u00a0": " ", "²": "^2", "█": "#"},
    }
)
# Whatever a terminal would obey rather than show, newline and tab aside; and halves of characters.
_UNSHOWN = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_NUMBERS = ("COLUMNS", "LINES", "TERMINAL_WIDTH")


def prepare() -> None:
    """Prepares what the program writes to; must run before anything else is imported or opened.

    Only the process's own streams are changed: where a test put others in their place, those stay as they are, and so
    do warnings.
    """
    _open_closed()
    for name in _NUMBERS:  # rich and typer take any digits for a width, and fail on other text
        value = os.environ.get(name, "")
        if not (value.isascii() and value.isdecimal() and 0 < int(value) < 10_000):
            os.environ.pop(name, None)
    os.environ["MPLBACKEND"] = "agg"  # nothing is drawn on a screen, and a name that matplotlib does not know ends it
    if sys.stderr is sys.__stderr__ and not debugging():
        _silence_libraries()
    codecs.register_error("lookalikes", _lookalikes)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__") and not isinstance(_raw(stream), _Descriptor):
            setattr(sys, name, _stream(stream, descriptor))


def finish(code: int) -> int:
    """The exit code of a run that would end with `code`: another where its output was lost, to a full disk, say.

    A reader that went away, as `head` does, is not a loss.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a stream of somebody else's
            stream.flush()
    raw = _raw(sys.stdout)
    lost = raw.lost if isinstance(raw, _Descriptor) else None
    if lost is None or lost.errno == errno.EPIPE:
        return code
    with contextlib.suppress(Exception):
        sys.stderr.write(f"Error: Standard output could not be written: {lost.strerror}.\n")
        sys.stderr.flush()
    return code or 3


def debugging() -> bool:
    """Whether the user asked for tracebacks."""
    return os.environ.get("TOFE_DEBUG") == "1"


def printable(text: str) -> str:
    r"""`text` with what a terminal would obey written out: the escape character becomes \x1b."""
    return _UNSHOWN.sub(_written_out, text)


def _written_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class _Descriptor(io.FileIO):
    """A standard stream that takes everything: what it cannot write is dropped, and the reason kept.

    Otherwise a table that nobody reads any more would end a run whose result matters, and Python would complain of it
    once more while it ends.
    """

    lost: OSError | None = None

    def write(self, data: bytes | bytearray | memoryview, /) -> int:  # type: ignore[override]
        """Takes all of `data`, or what the system takes at once."""
        while self.lost is None:
            try:
                written = super().write(data)
            except OSError as error:
                self.lost = error
                break
            if written is not None:
                return written
            select.select([], [self], [])  # a stream that does not block, as some shells leave it
        return len(data)


def _raw(stream: object) -> object:
    return getattr(getattr(stream, "buffer", None), "raw", None)


def _stream(old: io.TextIOWrapper | None, descriptor: int) -> io.TextIOWrapper:
    """`old`, or what stands for a closed one, with a `_Descriptor` below and lookalikes for what it cannot encode."""
    if old is not None:
        with contextlib.suppress(OSError, ValueError):
            old.flush()
    raw = _Descriptor(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),  # type: ignore[type-var]
        encoding="utf-8" if old is None else old.encoding,
        errors="lookalikes",
        line_buffering=descriptor == 2 or raw.isatty(),
        write_through=getattr(old, "write_through", False),
    )


def _open_closed() -> None:
    """Puts /dev/null where a standard stream is closed: the next file opened would take its number, and get what
    libraries print."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _silence_libraries() -> None:
    """What Pillow, PyTorch and others tell programmers says nothing to a user; what matters is checked and said."""
    warnings.resetwarnings()
    warnings.simplefilter("ignore")
    warnings.showwarning = lambda *_, **__: None  # some libraries put filters of their own before these
    logging.disable(logging.CRITICAL)


def _lookalikes(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_LOOKALIKES)
    return printable(text).encode("ascii", "backslashreplace").decode("ascii"), error.end
