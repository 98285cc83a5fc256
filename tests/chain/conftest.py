"""How many random configurations: a few by default, always the same ones; more and new ones by option."""

from __future__ import annotations

import pytest

from tests.chain.configurations import SHARES


@pytest.fixture(scope="session")
def examples(request: pytest.FixtureRequest) -> int | None:
    """How many a share; None for the default ones."""
    wanted = request.config.getoption("--examples")
    return None if wanted is None else max(1, -(-int(wanted) // len(SHARES)))
