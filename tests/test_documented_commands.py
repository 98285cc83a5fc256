"""Every command in the README, the documentation and the workflows is one that the program takes."""

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from tofe_export.cli.app import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / ".github/workflows").glob("*.yml"))]
PROGRAM = typer.main.get_command(app)
USAGE_ERROR = typer.BadParameter.__base__  # click's, or that of the copy that newer releases of typer bring
assert USAGE_ERROR is not None
# Inside a code block or a `run:` line, or quoted inline with at least a verb and something after it.
_LINE = re.compile(r"^\s*(?:-\s+)?(?:run:\s+)?(?:\$\s+)?(tofe-export \S.*)$")
_INLINE = re.compile(r"`(tofe-export [a-z][^`\n]*)`")
_COMMENT = re.compile(r"\s+#\s.*$")


def commands(page: Path) -> list[str]:
    """Every command of a page, as it would be typed; lines that end in a backslash go on."""
    found: list[str] = []
    for line in page.read_text().replace("\\\n", " ").splitlines():
        whole = _LINE.match(line)
        found += [whole[1]] if whole else _INLINE.findall(line)
    return [_COMMENT.sub("", text).strip() for text in found]


def parse(text: str) -> None:
    """Raises a usage error unless the program would take the command; nothing is run."""
    _, *words = shlex.split(re.split(r"\s(?:&&|\||>|;)\s?", text)[0])
    words = [word for word in words if word not in ("…", "...")]
    if words[0].startswith("--"):
        return
    verb = PROGRAM.commands.get(words[0])  # type: ignore[attr-defined]
    if verb is None:
        raise typer.BadParameter(f"no verb {words[0]}")
    # `tofe-export verify` in a sentence names the verb; with options it must be whole.
    if len(words) > 1:
        verb.make_context(words[0], words[1:], resilient_parsing=False)


ALL = [(page, command) for page in PAGES for command in commands(page)]


@pytest.mark.parametrize(("page", "command"), ALL, ids=[f"{page.name}: {command}" for page, command in ALL])
def test_the_program_takes_it(page: Path, command: str) -> None:
    parse(command)


def test_the_pages_are_really_read() -> None:
    assert len(ALL) >= 58
    assert {page.name for page, _ in ALL} >= {"README.md", "engines.md", "quantization.md", "ci.yml", "gpu.yml"}


@pytest.mark.parametrize(
    "wrong",
    [
        "tofe-export verfy model.onnx --against ckpt.pth",
        "tofe-export verify model.onnx",
        "tofe-export onnx ckpt.pth --no-such-option",
        "tofe-export bench model.onnx --rounds many",
    ],
)
def test_a_wrong_command_is_noticed(wrong: str) -> None:
    with pytest.raises(USAGE_ERROR):
        parse(wrong)


@pytest.mark.parametrize("path", sorted((ROOT / ".github/workflows").glob("*.yml")), ids=lambda path: path.name)
def test_workflows_are_limited(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 60
        if "self-hosted" in job["runs-on"]:
            triggers = workflow[True]  # YAML 1.1 reads the key `on` as true
            assert "pull_request" not in triggers, "strangers' code must not run on somebody's own machine"
            assert "pull_request_target" not in triggers
