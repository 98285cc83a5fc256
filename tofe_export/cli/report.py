"""tofe-export report"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from tofe_export.bounds import MOST_PICTURES
from tofe_export.cli import console


def report(
    folder: Annotated[Path, Argument(help="Folder with ckpt.pth, verify.json, bench.json, ...", metavar="DIR")],
    output: Annotated[Path | None, Option("--output", "-o", help="Page to write; default DIR/report.html.")] = None,
    images: Annotated[int, Option(help="How many held-out images to show.", min=0, max=MOST_PICTURES)] = 6,
    data: Annotated[
        str | None, Option(help="Where those come from: 'digits', 'photos' or a folder; default: as trained.")
    ] = None,
    figures: Annotated[
        Path | None, Option(help="Folder for every figure of the page, as PNG and SVG.", metavar="FOLDER")
    ] = None,
) -> None:
    """Make one self-contained HTML page of what lies in a folder."""
    from tofe_export.api.report import report
    from tofe_export.data.image_log import ImageLog
    from tofe_export.data.sources import require_unambiguous

    require_unambiguous(data)
    log = ImageLog()
    console.leave_alone(output)
    with console.progress() as progress:
        page = report(folder, output, images=images, data=data, figures=figures, log=log, progress=progress)
    console.say(f"Wrote {page}")
    if figures is not None:
        console.say(f"Wrote the figures to {figures}")
    console.show_images(log.document())
