"""From a run folder to one HTML page, and its figures as files on request."""

from __future__ import annotations

from pathlib import Path

import jinja2
from markupsafe import Markup

from tofe_export import __version__
from tofe_export.artifacts.file_kinds import Kind
from tofe_export.artifacts.outputs import Output, require_folder, require_outputs
from tofe_export.bounds import MOST_PICTURES, require_within
from tofe_export.data.image_log import ImageLog
from tofe_export.documents.history import DENSE
from tofe_export.errors import InputError
from tofe_export.files.names import CHECKPOINT, PAGE, READ_BY_REPORT
from tofe_export.files.places import resolved
from tofe_export.files.writing import explained, write_text
from tofe_export.page import agreement, speed
from tofe_export.page.drawing import Chart, write_figure
from tofe_export.page.folder import RunFolder, read_folder
from tofe_export.page.gallery import Gallery, class_name, gallery, stage_picture, token_map_figure
from tofe_export.page.headline import WORDS, facts, headline, key_numbers
from tofe_export.page.images import open_images
from tofe_export.page.labels import shown
from tofe_export.page.pictures import data_uri
from tofe_export.page.training_charts import training_charts
from tofe_export.page.training_pace import ending_facts, pace_chart, pace_table
from tofe_export.page.wording import percent
from tofe_export.progress import Progress, silent

Charts = dict[str, list[Chart]]
"""Of each section of the page; without numbers it has none."""
_TOKEN_MAPS = "token-maps"


def build_report(
    folder: Path,
    page: Path | None = None,
    *,
    images: int = 6,
    data: str | None = None,
    figures: Path | None = None,
    log: ImageLog | None = None,
    progress: Progress = silent,
) -> Path:
    """Writes the page of a run's folder; the arguments are those of `tofe_export.report`.

    The same folder gives the same bytes. What is missing in it is omitted, with the command that makes it.

    Raises:
        InputError: no such folder, nothing in it to report, a damaged part, or a page that cannot be written or would
            replace what it is about.
        MissingError: the disk is full.
    """
    require_within("images", images, 0, MOST_PICTURES)
    run = read_folder(folder)
    if data is not None and (images == 0 or run.checkpoint is None):
        why = "`images` is 0" if images == 0 else f"there is no {CHECKPOINT} in {folder}"
        raise InputError(f"`data` says where pictures come from, but {why}.", "Omit `data`.", code="data-unused")
    page = folder / PAGE if page is None else page
    charts = _charts(run)
    outputs = [Output(page, Kind.PAGE)]
    if figures is not None:
        require_folder(figures)
        names = [*(chart.name for section in charts.values() for chart in section), _TOKEN_MAPS]
        outputs += [Output(figures / f"{name}.{end}", Kind.PICTURE) for name in names for end in ("png", "svg")]
    require_outputs(outputs, [folder / name for name in READ_BY_REPORT])
    pictured = None
    if images and run.checkpoint is not None:
        pictured = open_images(run.checkpoint, images, data, log or ImageLog(), progress)
    maps = gallery(run, pictured)
    write_text(page, _render(run, charts, maps))
    if figures is not None:
        _write_figures(figures, charts, maps)
    return page


def _charts(run: RunFolder) -> Charts:
    timed = (speed.speed_chart(run.benchmark), speed.latency_chart(run.benchmark)) if run.benchmark else ()
    cost = agreement.cost_chart(run.artifacts, run.history.final_accuracy(DENSE) if run.history else None)
    pace = pace_chart(run.pace) if run.pace else None
    return {
        "speed": [chart for chart in timed if chart is not None],
        "kept": agreement.kept_charts(run.threshold) if run.threshold else [],
        "cost": [cost] if cost else [],
        "training": training_charts(run.history, run.budget) if run.history else [],
        "pace": [pace] if pace else [],
    }


def _render(run: RunFolder, charts: Charts, maps: Gallery) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tofe_export.page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: shown(value) if type(value) is str else value,  # whatever a file called itself
    )
    environment.filters |= {"percent": percent, "data_uri": data_uri, "class_name": class_name}
    # Not escaped because it is this program's own: matplotlib drew it, and escapes the texts in it.
    environment.filters["svg"] = lambda chart: Markup(chart.svg())
    sentence, tone = headline(run.artifacts, run.benchmark)
    word = WORDS[tone]
    if run.outdated:
        word, tone = "Outdated", "open"
        sentence = "What was exported, compared or timed is not what lies here now: see below."
    return environment.get_template("report.html.j2").render(
        run=run,
        title=_title(run),
        headline=sentence,
        word=word,
        tone=tone,
        key_numbers=key_numbers(run),
        facts=facts(run),
        charts=charts,
        ending=ending_facts(run.checkpoint.metrics) if run.checkpoint else [],
        pace=pace_table(run.pace) if run.pace else None,
        speed=speed,
        agreement=agreement,
        both_kinds=any(artifact.stages and artifact.logits_same_selection for artifact in run.artifacts),
        gallery=maps,
        stage_picture=stage_picture,
        version=__version__,
    )


def _write_figures(folder: Path, charts: Charts, maps: Gallery) -> None:
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)  # though there may be no figure
    for section in charts.values():
        for chart in section:
            chart.write(folder)
    if maps.maps:
        write_figure(token_map_figure(maps.maps, maps.classes, frozen=maps.frozen), folder / _TOKEN_MAPS)


def _title(run: RunFolder) -> str:
    if run.checkpoint is not None:
        return run.checkpoint.model.config.backbone
    return run.manifest.config.backbone if run.manifest is not None else resolved(run.path).name
