"""The package's own source as data: its texts, and its errors."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tofe_export.errors import TofeError

OF_OTHERS = re.compile(r"python -c .*|python -m http\.server .*|tritonserver .*|kubectl .*|hf download [^;]*")
"""Commands of other programs, which have options of their own."""
PACKAGE = Path(__file__).parent.parent / "tofe_export"


@dataclass(frozen=True)
class Text:
    """A text of the package that is not a docstring, and where it stands."""

    room: str
    line: int
    text: str

    @property
    def place(self) -> str:
        """file:line"""
        return f"{self.room}:{self.line}"


@dataclass(frozen=True)
class Raised:
    """An error that the source constructs; without a code where it gives none that is plain."""

    room: str
    line: int
    code: str
    details: tuple[str, ...]


def files() -> list[Path]:
    """Every file of the package."""
    return sorted(PACKAGE.rglob("*.py"))


@functools.cache
def _trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in files()}


@functools.cache
def texts() -> tuple[Text, ...]:
    """Of a sum of texts, the sum alone; what is filled in becomes X."""
    return tuple(_texts())


def _texts() -> Iterator[Text]:
    for path, tree in _trees().items():
        seen = _docstrings(tree)
        for node in ast.walk(tree):  # parents come before their parts
            if id(node) in seen or not isinstance(node, ast.expr):
                continue
            text = written(node)
            if text is not None:
                seen |= {id(part) for part in ast.walk(node)}
                yield Text(str(path.relative_to(PACKAGE)), node.lineno, text)


def written(node: ast.expr) -> str | None:
    """The text that an expression makes; None where it makes none."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = written(node.left), written(node.right)
        return None if left is None and right is None else (left or "X") + (right or "X")
    if isinstance(node, ast.Call):
        return _command(node)
    if not isinstance(node, ast.JoinedStr):
        return None
    text = ""
    for part in node.values:
        whole = _command(part.value) if isinstance(part, ast.FormattedValue) else None
        filled = whole or ("fp16" if text.endswith("--") else "X")
        text += str(part.value) if isinstance(part, ast.Constant) else filled
    return text


def _command(node: ast.expr) -> str | None:
    """What `files.commands.command(...)` makes, if it is a call of that."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "command"):
        return None
    words: list[str] = []
    for argument in node.args:
        inner = argument.value if isinstance(argument, ast.Starred) else argument
        parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        if not isinstance(argument, ast.Starred) or isinstance(inner, ast.Tuple):
            words += [written(part) or "X" for part in parts]
    return " ".join(["tofe-export", *words])


def _docstrings(tree: ast.AST) -> set[int]:
    docstrings = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            docstrings |= {
                id(line.value) for line in body if isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)
            }
    return docstrings


def arguments(text: Text) -> list[str]:
    """The arguments that a text names in backticks, without their values."""
    names = [name.partition("=")[0] for name in re.findall(r"`([^`]+)`", text.text)]
    return [name for name in names if name != "X"]


def errors() -> list[Raised]:
    """Every error that the source constructs, and those that construct themselves."""
    kinds = {kind.__name__ for kind in (TofeError, *TofeError.__subclasses__())}
    raised = []
    for path, tree in _trees().items():
        room = str(path.relative_to(PACKAGE))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds:
                raised.append(_raised(room, node))
            elif isinstance(node, ast.ClassDef) and {ast.unparse(base) for base in node.bases} & (
                kinds - {"TofeError"}
            ):
                calls = [each for each in ast.walk(node) if isinstance(each, ast.Call)]
                raised += [_raised(room, call) for call in calls if ast.unparse(call.func) == "super().__init__"]
    return raised


def _raised(room: str, node: ast.Call) -> Raised:
    named = {keyword.arg: keyword.value for keyword in node.keywords}
    value = named.pop("code", None)
    code = (written(value) or ast.unparse(value)) if value is not None else ""
    return Raised(room, node.lineno, code, tuple(str(name) for name in named))
