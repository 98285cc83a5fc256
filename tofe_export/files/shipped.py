"""Files that come with the program. Imports nothing heavy: the shell completes their names."""

from __future__ import annotations

from pathlib import Path

# In the source tree recipes lie at the top; in an installed package inside it.
_RECIPES = (Path(__file__).parents[2] / "calibration", Path(__file__).parents[1] / "calibration")


def shipped_recipes() -> dict[str, Path]:
    """Calibration recipes, by name."""
    return {path.stem: path for folder in _RECIPES if folder.is_dir() for path in sorted(folder.glob("*.toml"))}
