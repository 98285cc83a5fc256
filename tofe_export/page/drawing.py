"""How a chart is drawn, once for the page and once for a file.

In the page it is inline SVG: text stays text, and colors are the page's own variables, which know light and dark. In a
file it has real colors on white. The same numbers give the same bytes.

Texts that come from files are never read as formulas, get into legends whatever they begin with, and may hold
characters that the font lacks: `drawing` and `legend_above` see to it, `labels.py` to what cannot be seen.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tofe_export.files.writing import atomic_path, write_text
from tofe_export.page.labels import shown


@dataclass(frozen=True)
class Ink:
    """Colors by their part: text, secondary text, rules, and three for series."""

    ink: str
    faint: str
    rule: str
    accent: str
    warm: str
    cool: str

    def series(self, number: int) -> str:
        """The color of the number-th series; they repeat after three."""
        return (self.accent, self.warm, self.cool)[number % 3]


# Matplotlib wants real colors; each of these stands for the variable of that name in the page's style sheet.
_PAGE = Ink("#010101", "#020202", "#030303", "#040404", "#050505", "#060606")
PAPER = Ink("#1e1d1a", "#6a665d", "#dedad0", "#0d6b62", "#c4530f", "#4a5fb0")

Entry = tuple[Artist, str]
"""Of a legend: what is drawn, and its text."""


@dataclass(frozen=True)
class Chart:
    """A chart of one pair of axes.

    Attributes:
        name: of its file, without an ending; its own within a page.
        title: short heading.
        text: what it shows, in words, for those who cannot see it.
        draw: puts the data into a figure and its axes.
        size: inches.
    """

    name: str
    title: str
    text: str
    draw: Callable[[Figure, Axes, Ink], None]
    size: tuple[float, float] = (3.4, 2.5)  # about 330 CSS pixels, a phone's width, so that text keeps its size

    def figure(self, ink: Ink = PAPER) -> Figure:
        """The chart in these colors; call it within `drawing`."""
        figure = Figure(figsize=self.size, layout="constrained")
        axes = figure.add_subplot()
        axes.grid(visible=True, axis="y")
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0)
        self.draw(figure, axes, ink)
        return figure

    def svg(self) -> str:
        """One <svg> element, safe to put into the page: matplotlib escapes the texts in it."""
        with drawing(_PAGE):
            return _inline(_to_svg(self.figure(_PAGE), transparent=True), f"{self.name}-")

    def write(self, folder: Path) -> list[Path]:
        """Writes it as PNG and SVG on white; see `write_figure`."""
        with drawing(PAPER):
            return write_figure(self.figure(), folder / self.name)


def write_figure(figure: Figure, stem: Path) -> list[Path]:
    """`stem`.png and `stem`.svg; see `write_png`."""
    png, svg = stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.svg")
    write_png(figure, png)
    write_text(svg, _to_svg(figure, facecolor="white"))
    return [png, svg]


def write_png(figure: Figure, path: Path, title: str | None = None) -> None:
    """At twice the screen's pixels, on white, atomically; `title` is in the file and not in the picture.

    Raises:
        InputError, MissingError: a folder that cannot be written, a full disk.
    """
    with drawing(), atomic_path(path) as temporary:
        metadata = {"Software": None, "Title": title}
        figure.savefig(temporary, format="png", dpi=200, facecolor="white", metadata=metadata)


@contextlib.contextmanager
def drawing(ink: Ink | None = None) -> Iterator[None]:
    """Within it every figure is drawn and saved, a chart in its `ink`.

    Texts are not formulas, and a character that the font lacks is a box.
    """
    settings: dict[Any, Any] = {"text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "tofe-export"}
    if ink is not None:
        settings |= {
            "font.family": ["sans-serif"],
            "font.size": 9,
            "text.color": ink.ink,
            "axes.edgecolor": ink.rule,
            "axes.labelcolor": ink.faint,
            "axes.linewidth": 0.8,
            "grid.color": ink.rule,
            "grid.linewidth": 0.6,
        }
        for axis in ("xtick", "ytick"):
            settings |= {f"{axis}.color": ink.rule, f"{axis}.labelcolor": ink.faint}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from", UserWarning)
        warnings.filterwarnings("ignore", r"Matplotlib currently does not support .* natively", UserWarning)
        yield


def legend_above(figure: Figure, entries: Sequence[Entry], columns: int = 3) -> None:
    """A legend over the axes of (artist, text) pairs, in `columns`; texts may begin with anything."""
    # Matplotlib omits a label that begins with "_": each gets a number first, then its text.
    legend = figure.legend(
        [artist for artist, _ in entries],
        [str(number) for number, _ in enumerate(entries)],
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        handlelength=1.3,
        columnspacing=1.4,
    )
    for text, (_, label) in zip(legend.get_texts(), entries, strict=True):
        text.set_text(shown(label))


def _to_svg(figure: Figure, **background: Any) -> str:
    buffer = io.StringIO()
    with drawing():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, **background)
    return buffer.getvalue()


def _inline(document: str, prefix: str) -> str:
    """An SVG file as an element of the page: no prologue, no size of its own, the page's colors and fonts.

    Matplotlib counts ids from 1 in each file, so that each gets a prefix.
    """
    head, _, body = document[document.index("<svg") :].partition(">")
    svg = re.sub(r' (?:width|height)="[^"]*"', "", head) + ">" + body
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font: ([0-9.]+)px [^;\"]+", r"font-size: \1px", svg)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}", svg)
    for name, color in vars(_PAGE).items():
        svg = svg.replace(color, f"var(--{name})")
    return svg.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)
