"""The largest numbers that a user may give: generous, but small enough for every library behind them."""

from __future__ import annotations

from tofe_export.errors import InputError

LARGEST_BATCH = 65_536
MOST_IMAGES = 100_000_000
MOST_PICTURES = 100  # each is on the page, in full
MOST_ROUNDS = 100_000
MOST_PROCESSES = 1000
MOST_THREADS = 1024
MOST_MIB = 1 << 20  # 1 TiB
LARGEST_SIDE = 8192  # pixels of an image


def require_within(name: str, value: float, least: float, most: float) -> None:
    """Raises InputError unless `least` <= `value` <= `most`, which NaN never is.

    Args:
        name: of the argument, for the message.
        value: of the argument.
        least, most: the range.
    """
    if not least <= value <= most:
        raise InputError(
            f"`{name}` is {value}, but it must be from {least:,} to {most:,}.",
            "Give another value.",
            code="out-of-range",
            name=name,
            value=value,
        )
