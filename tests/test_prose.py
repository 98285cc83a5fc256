"""tools/prose.py finds the phrases in prose, and only in prose."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools.prose import findings

ROOT = Path(__file__).parent.parent


def found(source: str, suffix: str = ".py") -> list[tuple[int, str]]:
    return [(line, text.lower()) for line, text, _ in findings(source, suffix)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('"""This is no folder."""', [(1, "is no")]),
        ("x = 1  # it mends a file", [(1, "mends")]),
        ('x = f"{artefact.name} is no {kind}"', [(1, "is no")]),
        ('x = (\n    "At most so "\n    "many images."\n)', [(2, "at most so many")]),
        ('x = (\n    f"At most so "\n    f"many images."\n)', [(2, "at most so many")]),
        ("# The list is used\n# up.", [(1, "used up")]),
        ('"""One row\nan image."""', [(1, "one row an image")]),
    ],
)
def test_comments_docstrings_and_literals_are_read(source: str, expected: list[tuple[int, str]]) -> None:
    assert found(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        "artefact = mend(colour)",
        'x = "is", "no"',
        'x = f"{artefact}"',
        "# There is no such file; it is no longer needed.",
        "# One of an image's rows; one more than a stage.",
        "# recommended, amended",
    ],
)
def test_code_and_plain_english_pass(source: str) -> None:
    assert found(source) == []


def test_code_and_link_targets_of_a_page_are_skipped() -> None:
    page = "An artefact.\n\n```\nartefact\n```\n`artefact` [word](artefact.md) <!-- artefact -->\n\nThis is\nno page.\n"
    assert found(page, ".md") == [(1, "artefact"), (8, "is no")]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "tools/prose.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_exit_code_and_the_place_of_a_finding(tmp_path: Path) -> None:
    page, clean = tmp_path / "page.md", tmp_path / "clean.py"
    page.write_text("\nMend the artefact.\n")
    clean.write_text("x = 1\n")
    everything = run(tmp_path)
    assert everything.returncode == 1
    assert everything.stdout.splitlines() == [f"{page}:2: Mend -> fix", f"{page}:2: artefact -> artifact"]
    counted = run("--count", tmp_path)
    assert (counted.returncode, counted.stdout.split()) == (
        1,
        ["1", "mend", "->", "fix", "1", "artefact", "->", "artifact"],
    )
    assert run(clean).returncode == 0
