"""From a run folder to one HTML page, and its figures as files where they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from tofe_export import __version__
from tofe_export.artifacts.file_kinds import Kind
from tofe_export.artifacts.files import write_text
from tofe_export.artifacts.names import CHECKPOINT, PAGE, READ_BY_REPORT
from tofe_export.artifacts.outputs import Output, require_folder, require_outputs
from tofe_export.artifacts.places import resolved
from tofe_export.bounds import MOST_PICTURES, require_within
from tofe_export.data.image_log import ImageLog
from tofe_export.errors import InputError
from tofe_export.report import charts, parity
from tofe_export.report.attention_section import AttentionSection, attention_section
from tofe_export.report.drawing import Chart, unique_ids, write_figure
from tofe_export.report.facts import facts, figures
from tofe_export.report.folder import RunFolder, read_folder
from tofe_export.report.gallery import Gallery, gallery
from tofe_export.report.heat import heat_figure
from tofe_export.report.history import DENSE
from tofe_export.report.labels import shown
from tofe_export.report.pictures import token_map_figure
from tofe_export.report.quality_charts import cost_chart, cost_points, kept_charts
from tofe_export.report.speed_charts import latency_chart, speed_chart
from tofe_export.report.tables import bench_table
from tofe_export.report.verdict import verdict

_TOKEN_MAPS, _ATTENTION = "token-maps", "attention"


@dataclass(frozen=True)
class _Drawn:
    """Every chart of the page, by section; a section without numbers is empty."""

    speed: list[Chart]
    kept: list[Chart]
    cost: list[Chart]
    training: list[Chart]

    @classmethod
    def of(cls, found: RunFolder) -> _Drawn:
        threshold = found.verification.threshold if found.verification else None
        dense = found.history.final_accuracy(DENSE) if found.history else None
        sections: list[list[Chart | None]] = [
            [speed_chart(found.benchmark), latency_chart(found.benchmark)] if found.benchmark else [],
            [*kept_charts(threshold)] if threshold else [],
            [cost_chart(cost_points(found.evidence, dense))],
            [*charts.training_charts(found.history, found.budget)] if found.history else [],
        ]
        drawn = [[chart for chart in section if chart is not None] for section in sections]
        unique = iter(unique_ids([chart for section in drawn for chart in section]))
        return cls(*([next(unique) for _ in section] for section in drawn))

    def every(self) -> list[Chart]:
        return [*self.speed, *self.kept, *self.cost, *self.training]


def build_report(
    folder: Path,
    output: Path | None = None,
    images: int = 6,
    data: str | None = None,
    figure_folder: Path | None = None,
    log: ImageLog | None = None,
) -> Path:
    """Writes the report of `folder`; what is missing there is left out, with the command that makes it.

    The page needs no network and no other file, and the same folder gives the same bytes.

    Args:
        folder: a run, holding any of ckpt.pth, metrics.jsonl, model.onnx.json, verify.json, bench.json.
        output: the page; default `folder`/report.html.
        images: held-out images to show token maps of; 0 for none.
        data: where those come from, in the words of --data; None takes the checkpoint's own.
        figure_folder: also write every figure there, as PNG and SVG.
        log: told which images were read and which were left out.

    Returns:
        The page's path.

    Raises:
        InputError: no such folder, nothing in it to report, a damaged part, or a page that cannot be written or would
            replace what it is about.
        MissingError: the disk is full.
    """
    require_within("--images", images, 0, MOST_PICTURES)
    found = read_folder(folder)
    if data is not None and (images == 0 or found.checkpoint is None):
        why = "none were asked for" if images == 0 else f"there is no {CHECKPOINT} in {folder}"
        raise InputError(f"--data says where pictures come from, but {why}.", "Leave it away.")
    page = output if output is not None else folder / PAGE
    log = ImageLog() if log is None else log
    drawn = _Drawn.of(found)
    _require_writable(folder, page, figure_folder, drawn)
    maps, attention = gallery(found, images, data, log), attention_section(found, images, data, log)
    write_text(page, _render(found, drawn, maps, attention))
    if figure_folder is not None:
        _write_figures(figure_folder, drawn, maps, attention)
    return page


def _require_writable(folder: Path, page: Path, figure_folder: Path | None, drawn: _Drawn) -> None:
    outputs = [Output(page, Kind.PAGE)]
    if figure_folder is not None:
        require_folder(figure_folder)
        names = [*(chart.name for chart in drawn.every()), _TOKEN_MAPS, _ATTENTION]
        outputs += [Output(figure_folder / f"{name}.{end}", Kind.PICTURE) for name in names for end in ("png", "svg")]
    require_outputs(outputs, [folder / name for name in READ_BY_REPORT])


def _render(found: RunFolder, drawn: _Drawn, maps: Gallery, attention: AttentionSection) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tofe_export.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: shown(value) if type(value) is str else value,  # whatever a file called itself
    )
    # Not escaped because it is this program's own: matplotlib drew it, and escapes the texts in it.
    environment.filters["svg"] = lambda chart: Markup(chart.svg)
    line, tone = verdict(found.evidence, found.benchmark)
    word = {"good": "Passed", "bad": "Attention", "open": "Unfinished"}[tone]
    if found.outdated:
        word, line, tone = (
            "Outdated",
            "What was exported, compared or timed is not what lies here now: see below.",
            "open",
        )
    threshold = found.verification.threshold if found.verification else None
    return environment.get_template("report.html.j2").render(
        title=_title(found),
        verdict=line,
        word=word,
        tone=tone,
        figures=figures(found),
        facts=facts(found),
        notes=found.notes,
        bench=bench_table(found.benchmark) if found.benchmark else None,
        drawn=drawn,
        overview=parity.overview(found.evidence) if found.evidence else [],
        artefacts=parity.artefact_tables(found.evidence) if found.evidence else [],
        same_tokens=any(one.stages and one.same_selection for one in found.evidence.artefacts)
        if found.evidence
        else False,
        train_command="" if found.checkpoint else found.commands.train,
        verify_command=found.command_before(found.commands.verify),
        bench_command=found.command_before(found.commands.bench),
        threshold=parity.threshold_table(threshold) if threshold else None,
        gallery=maps,
        attention=attention,
        versions=_versions(found),
        version=__version__,
    )


def _write_figures(folder: Path, drawn: _Drawn, maps: Gallery, attention: AttentionSection) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}).", "Name another folder.") from error
    for chart in drawn.every():
        chart.write(folder)
    if maps.maps:
        write_figure(token_map_figure(maps.maps, maps.classes), folder / _TOKEN_MAPS)
    if attention.maps:
        write_figure(heat_figure(attention.maps), folder / _ATTENTION)


def _title(found: RunFolder) -> str:
    if found.checkpoint is not None:
        return found.checkpoint.model.config.backbone
    if found.manifest is not None:
        return str((found.manifest.get("config") or {}).get("backbone", "ToFe"))
    return resolved(found.path).name


def _versions(found: RunFolder) -> list[tuple[str, str]]:
    """Of the packages that the figures depend on: as benched, else as exported."""
    named = found.benchmark.versions if found.benchmark else (found.manifest or {}).get("versions") or {}
    return [(str(name), str(version)) for name, version in named.items()]
