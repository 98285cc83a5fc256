"""What a message says to type next can be typed: commands parse, and options exist where they are said."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from tests.helpers import small_tofe
from tests.test_documented_commands import PROGRAM, USAGE_ERROR, parse
from tofe_export.bench.subjects import open_groups
from tofe_export.checkpoints.checkpoint import Checkpoint, save
from tofe_export.checkpoints.weights import read_weights
from tofe_export.cli.app import app
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.doctor import examine
from tofe_export.errors import InputError
from tofe_export.report import build_report
from tofe_export.report.folder import read_folder
from tofe_export.workflows.bench_models import bench_models
from tofe_export.workflows.calibrate_model import first_step

PACKAGE = Path(__file__).parent.parent / "tofe_export"
VERBS: dict[str, typer.core.TyperCommand] = PROGRAM.commands  # type: ignore[attr-defined]
EVERY = tuple(VERBS)
# Where the messages of a room can come up; a room that is not named serves every verb.
ROOMS: dict[str, tuple[str, ...]] = {
    **{f"cli/{verb}.py": (verb,) for verb in EVERY},
    "training/": ("train", "demo"),
    "engine/": ("trt",),
    "precision/": ("quantize", "trt"),
    "bench/": ("bench",),
    "report/": ("report",),
    "workflows/bench_models.py": ("bench",),
    "workflows/build_engine.py": ("trt",),
    "workflows/export_onnx.py": ("onnx",),
    "workflows/keep_counts.py": ("onnx",),
    "workflows/quantize_model.py": ("quantize",),
    "workflows/verify_model.py": ("verify",),
    "verify/": ("verify", "onnx"),
    "cli/hints.py": ("onnx", "inspect"),
}
_OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z-]+|-[a-z])(?![\w-])")
_COMMAND = re.compile(r"tofe-export (?:" + "|".join(EVERY) + r")\b[^;:]*")


def _docstrings(tree: ast.AST) -> set[int]:
    found = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            found |= {
                id(line.value) for line in body if isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)
            }
    return found


def _text(node: ast.expr) -> str | None:
    """A text of the source; what is filled in becomes a word, or a precision where an option is made of it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return (_text(node.left) or "X") + (_text(node.right) or "X")
    if isinstance(node, ast.Call):
        return _command(node)
    if not isinstance(node, ast.JoinedStr):
        return None
    made = ""
    for part in node.values:
        whole = isinstance(part, ast.FormattedValue) and _command(part.value)
        made += str(part.value) if isinstance(part, ast.Constant) else whole or ("fp16" if made.endswith("--") else "X")
    return made


def _command(node: ast.expr) -> str | None:
    """What `artifacts.commands.command(...)` makes, if it is a call of that."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "command"):
        return None
    words: list[str] = []
    for argument in node.args:
        inner = argument.value if isinstance(argument, ast.Starred) else argument
        parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        if not isinstance(argument, ast.Starred) or isinstance(inner, ast.Tuple):
            words += [_text(part) or "X" for part in parts]
    return " ".join(["tofe-export", *words])


def texts() -> Iterator[tuple[str, str]]:
    """(file:line, text) of every text in the package that is no docstring; of a sum, the sum alone."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        seen = _docstrings(tree)
        for node in ast.walk(tree):  # parents come before their parts
            if id(node) in seen or not isinstance(node, ast.expr):
                continue
            text = _text(node)
            if text is not None:
                seen |= {id(part) for part in ast.walk(node)}
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", text


def commands_in(text: str) -> list[str]:
    """The commands of a sentence; one with neither option nor file behind the verb only names it."""
    found = []
    for match in _COMMAND.finditer(text):
        command = re.split(r"[.,]? or |, (?!\d)|\. |\.$|   |\)| \(", match[0])[0].strip()
        words = command.split()[2:]
        if words and not (words[0].isalpha() and words[0].islower()):  # "what tofe-export onnx wrote"
            found.append(command.replace("…", "").replace(" ... ", " "))
    return found


TEXTS = list(texts())
COMMANDS = [(place, command) for place, text in TEXTS for command in commands_in(text)]


@pytest.mark.parametrize(("place", "command"), COMMANDS, ids=[f"{place} {command}" for place, command in COMMANDS])
def test_the_program_takes_it(place: str, command: str) -> None:
    if place.startswith("cli/demo.py"):
        return  # "train --data digits ... -o": says what is left out
    parse(command)


def test_the_source_is_really_read() -> None:
    assert len(COMMANDS) >= 18
    verbs = {command.split()[1] for _, command in COMMANDS}
    assert verbs >= {"train", "onnx", "verify", "bench", "trt", "report", "demo"}
    assert commands_in("Fine-tune it: tofe-export train --init X, or do not.") == ["tofe-export train --init X"]
    assert commands_in("Start from the file that tofe-export onnx wrote.") == []
    with pytest.raises(USAGE_ERROR):
        parse("tofe-export train --init X")


@pytest.mark.parametrize("place", sorted({place.partition(":")[0] for place, _ in TEXTS}))
def test_an_option_in_a_sentence_is_one_of_a_verb_that_says_it(place: str) -> None:
    verbs = next((ROOMS[room] for room in sorted(ROOMS, key=len, reverse=True) if place.startswith(room)), EVERY)
    theirs = {
        option for verb in verbs for param in VERBS[verb].params for option in (*param.opts, *param.secondary_opts)
    }
    for where, text in TEXTS:
        if where.partition(":")[0] != place or not text[:1].isupper() or text.startswith("X --"):
            continue  # a sentence begins with a capital; X is a command from elsewhere
        named = {verb for verb in EVERY if re.search(rf"\b{verb}\b", text, re.IGNORECASE)}
        known = theirs | {option for verb in named for param in VERBS[verb].params for option in param.opts}
        unknown = set(_OPTION.findall(text)) - known - {"-c", "--version", "--help"}
        assert not unknown, f"{where}: {text}"


def test_what_pip_is_told_to_install_exists() -> None:
    extras = set(re.findall(r"^(\w+) = \[", (PACKAGE.parent / "pyproject.toml").read_text(), re.MULTILINE))
    told = [text for _, text in TEXTS if "pip install" in text] + [row.next_step for row in examine().rows]
    for text in told:
        assert set(re.findall(r"tofe-export\[(\w+)\]", text)) <= extras, text


def test_a_checkpoint_without_counts_is_not_told_options_of_another_verb(tmp_path: Path) -> None:
    model = small_tofe()
    save(tmp_path / "ckpt.pth", Checkpoint(model, (), Preprocessing.of_backbone(model.vit), {}, "digits"))
    with pytest.raises(InputError) as caught:
        open_groups([tmp_path / "ckpt.pth"], 1)
    assert caught.value.next_step.endswith("Those are options of tofe-export onnx: time what it writes.")


def test_steps_of_errors_are_commands(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "bench.json").write_text("{")
    steps = [first_step(tmp_path / "ckpt.pth")]
    for call in (
        lambda: read_weights(tmp_path / "gone.pth"),
        lambda: read_folder(tmp_path / "gone"),
        lambda: read_folder(tmp_path / "file"),
        lambda: read_folder(tmp_path),
        lambda: bench_models([]),
    ):
        with pytest.raises(InputError) as caught:
            call()
        steps.append(caught.value.next_step)
    for step in steps:
        (command,) = commands_in(step)
        parse(command)


@pytest.mark.slow
def test_the_page_leads_on_until_nothing_is_missing(tmp_path: Path) -> None:
    """Each command that the page offers is typed, page after page."""
    model = small_tofe()
    folder = tmp_path / "my run"
    save(folder / "ckpt.pth", Checkpoint(model, (0.5, 0.4, 0.4), Preprocessing.of_backbone(model.vit), {}, "digits"))
    typed = []
    while True:
        page = build_report(folder, images=1).read_text()
        offered = re.findall(r'<p class="missing">[^<]*<code>(.*?)</code>', page)
        if not offered:
            break
        command = offered[0].replace("&#39;", "'")
        assert command not in typed, "it did not lead on"
        typed.append(command)
        extra = {"verify": ["--samples", "8"], "bench": ["--batch", "1", "--rounds", "2"]}
        words = shlex.split(command)[1:]
        app([*words, *extra.get(words[0], [])], standalone_mode=False)
    assert [shlex.split(command)[1] for command in typed] == ["onnx", "bench", "verify"]
