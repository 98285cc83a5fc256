"""How a chart is drawn, once for the page and once for a file.

In the page it is inline SVG: text stays text, and colours are the page's own variables, which know light and dark. In a
file it has real colours on white. The same numbers give the same bytes.

Texts that come from files are never read as formulas, get into legends whatever they begin with, and may hold
characters that the font lacks: `drawing` and `legend_above` see to it, `names.py` to what cannot be seen.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tofe_export.artifacts.files import atomic_path, write_text
from tofe_export.report.labels import shown

SIZE = 3.4, 2.5  # inches: about 330 CSS pixels, a phone's width or a third of the page, so that text keeps its size


@dataclass(frozen=True)
class Ink:
    """Colours by their part: text, secondary text, rules, and three for series."""

    ink: str
    faint: str
    rule: str
    accent: str
    warm: str
    cool: str

    def series(self, number: int) -> str:
        """The colour of the number-th series; they repeat after three."""
        return (self.accent, self.warm, self.cool)[number % 3]


# Matplotlib wants real colours; each of these stands for the variable of that name in the page's style sheet.
_PAGE = Ink("#010101", "#020202", "#030303", "#040404", "#050505", "#060606")
_PLAIN = {"text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "tofe-export"}
PAPER = Ink("#1e1d1a", "#6a665d", "#dedad0", "#0d6b62", "#c4530f", "#4a5fb0")

Draw = Callable[[Figure, Axes, Ink], None]
Entry = tuple[Artist, str]
"""Of a legend: what is drawn, and its text."""


@dataclass(frozen=True)
class Chart:
    """A drawn chart.

    Attributes:
        title: short heading.
        svg: one <svg> element, safe to put in the page: matplotlib escapes the texts in it.
        text: what it shows, in words, for those who cannot see it.
        name: of its file, without an ending.
        figure: draws it anew in other colours.
    """

    title: str
    svg: str
    text: str
    name: str = field(default="", compare=False)
    figure: Callable[[Ink], Figure] | None = field(default=None, compare=False, repr=False)

    def write(self, folder: Path) -> list[Path]:
        """Writes it as PNG and SVG on white; see `write_figure`."""
        if self.figure is None:
            return []
        with drawing(_style(PAPER)):
            return write_figure(self.figure(PAPER), folder / self.name)


def draw_chart(name: str, title: str, text: str, draw: Draw, size: tuple[float, float] = SIZE) -> Chart:
    """A chart of one pair of axes.

    Args:
        name: of its file.
        title: short heading.
        text: what it shows, in words.
        draw: puts the data in.
        size: inches.
    """

    def figure(ink: Ink) -> Figure:
        made = Figure(figsize=size, layout="constrained")
        axes = made.add_subplot()
        axes.grid(visible=True, axis="y")
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0)
        draw(made, axes, ink)
        return made

    with drawing(_style(_PAGE)):
        return Chart(title, _inline(_to_svg(figure(_PAGE))), text, name, figure)


def write_figure(figure: Figure, stem: Path) -> list[Path]:
    """`stem`.png at twice the screen's pixels and `stem`.svg, on white, each atomically.

    Raises:
        InputError, MissingError: a folder that cannot be written, a full disk.
    """
    png, svg = stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".svg")
    write_png(figure, png)
    with drawing():
        write_text(svg, _to_svg(figure, "white"))
    return [png, svg]


def write_png(figure: Figure, path: Path) -> None:
    """The figure at twice the screen's pixels, on white, atomically.

    Raises:
        InputError, MissingError: a folder that cannot be written, a full disk.
    """
    with drawing(), atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=200, facecolor="white", metadata={"Software": None})


@contextlib.contextmanager
def drawing(style: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Every figure is made and saved inside: texts are no formulas, and a character that the font lacks is a box."""
    settings: Any = {**_PLAIN, **(style or {})}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from", UserWarning)
        warnings.filterwarnings("ignore", r"Matplotlib currently does not support .* natively", UserWarning)
        yield


def legend_above(figure: Figure, entries: Sequence[Entry], columns: int = 3) -> None:
    """A legend over the axes of (artist, text) pairs, in `columns`; texts may begin with anything."""
    # Matplotlib leaves out a label that begins with "_": each gets a number first, then its text.
    numbers = [str(number) for number, _ in enumerate(entries)]
    legend = figure.legend(
        [artist for artist, _ in entries],
        numbers,
        loc="outside upper left",
        ncols=columns,
        frameon=False,
        handlelength=1.3,
        columnspacing=1.4,
    )
    for text, (_, label) in zip(legend.get_texts(), entries, strict=True):
        text.set_text(shown(label))


def dot_size(points: int) -> float:
    """Marker size: dots carry a short series, a long one is a line."""
    return 3.0 if points <= 20 else 0.0


def unique_ids(charts: Sequence[Chart]) -> list[Chart]:
    """The charts with ids that stay apart when several stand in one page: matplotlib counts from 1 in each."""
    return [
        Chart(chart.title, _prefix_ids(chart.svg, f"c{number}-"), chart.text, chart.name, chart.figure)
        for number, chart in enumerate(charts)
    ]


def _style(ink: Ink) -> Any:
    return {
        "font.family": ["sans-serif"],
        "font.size": 9,
        "axes.edgecolor": ink.rule,
        "axes.labelcolor": ink.faint,
        "axes.linewidth": 0.8,
        "text.color": ink.ink,
        "xtick.color": ink.rule,
        "ytick.color": ink.rule,
        "xtick.labelcolor": ink.faint,
        "ytick.labelcolor": ink.faint,
        "grid.color": ink.rule,
        "grid.linewidth": 0.6,
    }


def _to_svg(figure: Figure, background: str | None = None) -> str:
    buffer = io.StringIO()
    colour: dict[str, Any] = {"transparent": True} if background is None else {"facecolor": background}
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, **colour)
    return buffer.getvalue()


def _inline(document: str) -> str:
    """An SVG file to an element of the page: no prologue, no size of its own, the page's colours and fonts."""
    svg = document[document.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"font: ([0-9.]+)px [^;\"]+", r"font-size: \1px", svg)
    for name, colour in vars(_PAGE).items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)


def _prefix_ids(svg: str, prefix: str) -> str:
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}", svg)
