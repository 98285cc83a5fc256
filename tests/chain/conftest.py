"""How many random configurations: 200 in all by default, always the same ones; more and new ones by option."""

from __future__ import annotations

import pytest

PARTS = 8
"""How the configurations are shared among tests; see `configurations.SHARES`."""


@pytest.fixture(scope="session")
def examples(request: pytest.FixtureRequest) -> int | None:
    """How many a part; None for the default ones."""
    wanted = request.config.getoption("--examples")
    return None if wanted is None else max(1, -(-int(wanted) // PARTS))
