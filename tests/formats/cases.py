"""All of them."""

from __future__ import annotations

import itertools
import warnings

from tests.formats import others, wrapped
from tests.formats.case import Case


def all_cases() -> list[Case]:
    """Every file, cheap to make."""
    with warnings.catch_warnings(action="ignore"):  # TorchScript and quantized tensors are deprecated; people have them
        return list(itertools.chain(wrapped.cases(), others.layouts(), others.refused(), others.told()))
