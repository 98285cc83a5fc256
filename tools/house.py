"""The house's own rules, which no linter knows: python tools/house.py

* no file above 350 lines, no function body above 50 (its docstring aside);
* no public function that takes or returns `dict[str, Any]` or `Mapping[str, Any]`, but for those named in `UNTYPED`.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
LONGEST_FILE, LONGEST_BODY = 350, 50
UNTYPED = {
    "files/reading.py": "JSON and TOML before they are checked",
    "files/writing.py": "JSON as it is written",
    "documents/toml.py": "TOML before it is checked",
    "documents/base.py": "JSON before it is checked, and after it was",
    "documents/manifest.py": "JSON before it is checked, and fields of one document for another",
    "documents/verification.py": "JSON as it is written",
    "artifacts/manifests.py": "JSON before its hash is compared",
    "checkpoints": "what stands in a checkpoint is whatever its author put there",
    "model/config.py": "the same, for a checkpoint of this program",
    "model/backbones.py": "keyword arguments of timm",
    "data/preprocessing.py": "the same, for a checkpoint of this program",
    "precision/recipe.py": "TOML before it is checked",
    "precision/calibration.py": "the key of a file of NumPy arrays",
    "training": "the state of a run, which PyTorch pickles",
    "studies": "results, as they stand in JSON; each experiment adds to them",
    "cli/parse.py": "keyword arguments of timm, as typed",
}
_LOOSE = {f"{name}[str, Any]" for name in ("dict", "Mapping")}


def main() -> int:
    """Prints what breaks a rule; exit 1 if something does."""
    problems = [problem for path in sorted(ROOT.glob("tofe_export/**/*.py")) for problem in _problems(path)]
    problems += [problem for path in sorted(ROOT.glob("studies/*.py")) for problem in _problems(path)]
    problems += [problem for path in sorted(ROOT.glob("plugins/**/*.py")) for problem in _problems(path)]
    print("\n".join(problems) or "The house is in order.")
    return int(bool(problems))


def _problems(path: Path) -> Iterator[str]:
    text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()
    if (lines := text.count("\n")) > LONGEST_FILE:
        yield f"{name}: {lines} lines; at most {LONGEST_FILE}. Split it by what it does."
    inside = name.removeprefix("tofe_export/")
    loose_allowed = name.startswith("plugins/") or any(
        inside == place or inside.startswith(f"{place}/") for place in UNTYPED
    )
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef):
            continue
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        if body and (length := (body[-1].end_lineno or 0) - body[0].lineno + 1) > LONGEST_BODY:
            yield f"{name}:{node.lineno}: {node.name} has {length} lines; at most {LONGEST_BODY}."
        if not node.name.startswith("_") and not loose_allowed and _is_loose(node):
            yield f"{name}:{node.lineno}: {node.name} hands on an untyped dictionary. Give it a class in documents/."


def _is_loose(function: ast.FunctionDef) -> bool:
    arguments = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    annotations = [argument.annotation for argument in arguments] + [function.returns]
    return any(loose in ast.unparse(one) for one in annotations if one is not None for loose in _LOOSE)


if __name__ == "__main__":
    sys.exit(main())
