"""From a run folder to one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path

from tofe_export.data.image_log import ImageLog
from tofe_export.page.build import build_report
from tofe_export.progress import Progress, silent


def report(
    folder: Path | str,
    path: Path | str | None = None,
    *,
    images: int = 6,
    data: Path | str | None = None,
    figures: Path | str | None = None,
    log: ImageLog | None = None,
    progress: Progress = silent,
) -> Path:
    """Writes a page of what lies in a run folder: speed, agreement with PyTorch, training, and where the tokens go.

    The page needs no network and no other file, and the same folder gives the same bytes. What is missing in the folder
    is omitted, with the command that makes it.

    Args:
        folder: holds any of ckpt.pth, metrics.jsonl, model.onnx, verify.json and bench.json.
        path: the page; default `folder`/report.html.
        images: how many held-out images to show token maps of; 0 for none.
        data: where those come from: "digits", "photos" or a folder; None takes what the checkpoint was trained on.
        figures: a folder for every figure of the page, as PNG and SVG.
        log: records which images were read and which were left out.
        progress: see `Progress`.

    Returns:
        The page's path.

    Raises:
        InputError: no such folder, nothing in it to report, a damaged part, or a page that cannot be written or would
            replace what it is about.
        MissingError: the disk is full.
    """
    return build_report(
        Path(folder),
        None if path is None else Path(path),
        images=images,
        data=None if data is None else str(data),
        figures=None if figures is None else Path(figures),
        log=log,
        progress=progress,
    )
