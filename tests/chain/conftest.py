"""How many random configurations: 200 in all by default, always the same ones; more and new ones by option."""

import pytest

DEFAULT, PARTS = 200, 8


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Cuts the configurations in parts, so that workers can share them."""
    if "part" in metafunc.fixturenames:
        metafunc.parametrize("part", range(PARTS))


@pytest.fixture(scope="session")
def examples(request: pytest.FixtureRequest) -> int | None:
    """How many a part; None for the default ones."""
    wanted = request.config.getoption("--examples")
    return None if wanted is None else max(1, -(-int(wanted) // PARTS))
