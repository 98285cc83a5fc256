"""All of them."""

from __future__ import annotations

import itertools

from tests.formats import others, wrapped
from tests.formats.case import Case


def all_cases() -> list[Case]:
    """Every file, cheap to make."""
    return list(itertools.chain(wrapped.cases(), others.layouts(), others.refused(), others.told()))
