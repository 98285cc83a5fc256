"""Every file that docs/validation.md names as evidence exists, and every published benchmark is on it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/validation.md").read_text()
NAMED = sorted(
    set(re.findall(r"`((?:tests|benchmarks)/[\w/.]+)`", PAGE)) | set(re.findall(r"\]\(\.\./([^)#]+)\)", PAGE))
)


@pytest.mark.parametrize("path", NAMED)
def test_the_evidence_exists(path: str) -> None:
    assert (ROOT / path).exists()


def test_every_benchmark_is_named() -> None:
    results = {str(path.relative_to(ROOT)) for path in (ROOT / "benchmarks/results").glob("*.json")}
    assert results <= set(NAMED)
