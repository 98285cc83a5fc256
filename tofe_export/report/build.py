"""From a run folder to one HTML page."""

from __future__ import annotations

from pathlib import Path

import jinja2
from markupsafe import Markup

from tofe_export import __version__
from tofe_export.artifacts.files import write_text
from tofe_export.errors import InputError
from tofe_export.report import charts, wording
from tofe_export.report.facts import facts, figures
from tofe_export.report.folder import RunFolder, read_folder
from tofe_export.report.gallery import gallery
from tofe_export.report.tables import bench_table, parity_table


def build_report(folder: Path, output: Path | None = None, images: int = 6, data: str | None = None) -> Path:
    """Writes the report of `folder`; what is missing there is left out, with the command that makes it.

    The page needs no network and no other file, and the same folder gives the same bytes.

    Args:
        folder: a run, holding any of ckpt.pth, metrics.jsonl, model.onnx.json, verify.json, bench.json.
        output: the page; default `folder`/report.html.
        images: held-out images to show token maps of; 0 for none.
        data: where those come from, in the words of --data; None takes the checkpoint's own.

    Returns:
        The page's path.

    Raises:
        InputError: no such folder, nothing in it to report, a damaged part, or a page that cannot be written.
        MissingError: the disk is full.
    """
    if images < 0:
        raise InputError(f"--images {images} is below 0.", "Give 0 or more.")
    found = read_folder(folder)
    page = output if output is not None else folder / "report.html"
    write_text(page, _render(found, images, data))
    return page


def _render(found: RunFolder, images: int, data: str | None) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tofe_export.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    # Not escaped because it is this program's own: the charts hold numbers and model names drawn by matplotlib.
    environment.filters["svg"] = lambda chart: Markup(chart.svg)
    training = charts.training_charts(found.history, found.budget) if found.history else []
    speed = charts.speed_chart(found.benchmark) if found.benchmark else None
    line, tone = wording.verdict(found.verification, found.benchmark)
    drawn = charts.unique_ids([*training, *([speed] if speed else [])])
    return environment.get_template("report.html.j2").render(
        title=_title(found),
        verdict=line,
        tone=tone,
        figures=figures(found),
        facts=facts(found),
        notes=found.notes,
        bench=bench_table(found.benchmark) if found.benchmark else None,
        speed=drawn[-1] if speed else None,
        parity=parity_table(found.verification) if found.verification else None,
        gallery=gallery(found, images, data),
        training=drawn[: len(training)],
        commands=found.commands,
        versions=_versions(found),
        version=__version__,
    )


def _title(found: RunFolder) -> str:
    if found.checkpoint is not None:
        return found.checkpoint.model.config.backbone
    if found.manifest is not None:
        return str(found.manifest.get("config", {}).get("backbone", "ToFe"))
    return found.path.resolve().name


def _versions(found: RunFolder) -> list[tuple[str, str]]:
    """Of the packages that the figures depend on: as benched, else as exported."""
    named = found.benchmark.versions if found.benchmark else (found.manifest or {}).get("versions", {})
    return [(str(name), str(version)) for name, version in named.items()]
