"""Draws docs/images/rooms.svg from the import contract in pyproject.toml: `python -m tools.rooms [--check]`.

Every row is a layer of the contract; a room imports from the rows below its own, and only from those.
With `--check` nothing is written: exit 1 when the file is not what would be drawn.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs/images/rooms.svg"
WIDTH, ROW, GAP, LEFT = 560, 34, 10, 90  # pixels
_STYLE = (
    "text{font:14px ui-monospace,Menlo,Consolas,monospace;fill:#1f2937;text-anchor:middle;dominant-baseline:central}"
    ".room{fill:#eef2ff;stroke:#6366f1}.plugins{fill:#ecfdf5;stroke:#059669}.arrow{stroke:#6b7280;stroke-width:2}"
    ".word{font-family:system-ui,sans-serif;font-size:13px;fill:#4b5563}"
)


def layers() -> list[list[str]]:
    """The rooms of each layer, top first."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (contract,) = [contract for contract in contracts if contract["type"] == "layers"][:1]
    rows = [re.split(r"[|:]", layer) for layer in contract["layers"]]
    return [[room.strip(" ()").removeprefix("tofe_export.") for room in row] for row in rows]


def draw(rows: list[list[str]]) -> str:
    """The picture as SVG; the same rows give the same text."""
    height = len(rows) * (ROW + GAP) + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
        "<title>The rooms of the package: imports go down only</title>",
        f"<style>{_STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" rx="6" fill="#fff"/>',
        f'<path class="arrow" fill="none" d="M30 {GAP + 8}V{height - GAP - 8}m-6 -9l6 9l6 -9"/>',
        f'<text class="word" transform="translate(58 {height // 2}) rotate(-90)">imports go down</text>',
    ]
    for number, row in enumerate(rows):
        top = GAP + number * (ROW + GAP)
        width = (WIDTH - LEFT - GAP * len(row)) / len(row)
        for place, room in enumerate(row):
            left = LEFT + place * (width + GAP)
            kind = "plugins" if room == "tofe_plugins" else "room"
            parts += [
                f'<rect class="{kind}" x="{left:g}" y="{top}" width="{width:g}" height="{ROW}" rx="5"/>',
                f'<text x="{left + width / 2:g}" y="{top + ROW / 2:g}">{room}</text>',
            ]
    return "\n".join([*parts, "</svg>", ""])


def main() -> int:
    """Exit code 1 when `--check` finds another picture."""
    picture = draw(layers())
    if "--check" in sys.argv[1:]:
        if PICTURE.is_file() and PICTURE.read_text(encoding="utf-8") == picture:
            return 0
        print("docs/images/rooms.svg is not what pyproject.toml says; draw it again: make diagram", file=sys.stderr)
        return 1
    PICTURE.write_text(picture, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
