"""Checks what `python -m build` left in dist/: `python tools/check_dist.py [--version 1.2.3]`.

The wheel must hold every module of the packages, py.typed, the recipes, the plugins' CUDA sources and the report's
templates, and nothing else: no tests. The sdist must hold what the wheel is built from. Exits 1 with a line per fault.
"""

from __future__ import annotations

import argparse
import ast
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Folder of the repository -> folder in the wheel.
FOLDERS = {
    "tofe_export": "tofe_export",
    "plugins/tofe_plugins": "tofe_plugins",
    "calibration": "tofe_export/calibration",
    "recipes": "tofe_export/recipes",
}
MUST = (
    "tofe_export/py.typed",
    "tofe_export/calibration/digits.toml",
    "tofe_export/recipes/finetune.toml",
    "tofe_plugins/cuda/token_partition.cu",
)


def version() -> str:
    """The version in tofe_export/__init__.py, the only place that holds it."""
    tree = ast.parse((ROOT / "tofe_export/__init__.py").read_text(encoding="utf-8"))
    (value,) = [
        node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        if any(isinstance(target, ast.Name) and target.id == "__version__" for target in node.targets)
    ]
    return str(value)


def sources() -> dict[str, str]:
    """Every file that belongs into the wheel: its name there -> its name in the repository."""
    return {
        f"{target}/{path.relative_to(ROOT / folder).as_posix()}": path.relative_to(ROOT).as_posix()
        for folder, target in FOLDERS.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def faults(wheel: set[str], sdist: set[str], number: str) -> list[str]:
    """What is wrong with the names in the two archives of version `number`."""
    expected = sources()
    packed = {name for name in wheel if not name.startswith(f"tofe_export-{number}.dist-info/")}
    top = f"tofe_export-{number}/"
    needed = {top + name for name in (*expected.values(), "pyproject.toml", "README.md", "LICENSE")}
    return [
        *(f"the repository lacks {name}" for name in MUST if name not in expected),
        *(f"the wheel lacks {name}" for name in sorted(expected.keys() - packed)),
        *(f"the wheel should not hold {name}" for name in sorted(packed - expected.keys())),
        *(f"the sdist lacks {name}" for name in sorted(needed - sdist)),
        *(f"the sdist should not hold {name}" for name in sorted(sdist) if name.endswith((".onnx", ".pth", ".pyc"))),
    ]


def main() -> int:
    """Exit code 1 when an archive is not what it should be."""
    parser = argparse.ArgumentParser(description="Checks the archives in dist/.")
    parser.add_argument("--version", help="the version that they must have, such as that of a tag")
    number = version()
    wanted = parser.parse_args().version or number
    wheels, sdists = sorted((ROOT / "dist").glob("*.whl")), sorted((ROOT / "dist").glob("*.tar.gz"))
    if [len(wheels), len(sdists)] != [1, 1]:
        print(f"dist/ must hold one wheel and one sdist, not {len(wheels)} and {len(sdists)}", file=sys.stderr)
        return 1
    with zipfile.ZipFile(wheels[0]) as wheel, tarfile.open(sdists[0]) as sdist:
        wrong = faults(set(wheel.namelist()), {entry.name for entry in sdist if entry.isfile()}, number)
    if wanted != number:
        wrong.append(f"tofe_export/__init__.py says version {number}, not {wanted}")
    print("\n".join(wrong) or f"{wheels[0].name} and {sdists[0].name} hold what they should")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
