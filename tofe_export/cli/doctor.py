"""tofe-export doctor"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Exit, Option

from tofe_export.cli import console

_MARKS = {"ok": "ok", "warn": "note", "missing": "MISSING"}


def doctor(json: Annotated[Path | None, Option(help="Write the result as JSON.", metavar="FILE")] = None) -> None:
    """Say what this machine can run, and the next step for what is missing; exit 3 when something is."""
    from tofe_export.api.doctor import doctor as examine
    from tofe_export.artifacts.file_kinds import Kind
    from tofe_export.artifacts.outputs import Output, require_outputs

    require_outputs([Output(json, Kind.DIAGNOSIS)])
    diagnosis = examine()
    console.save_json(json, diagnosis)
    rows = [(row.name, row.value, _MARKS[row.status], row.next_step) for row in diagnosis.rows]
    console.table("This machine", ("", "found", "", "next step"), rows, numbers=False)
    console.table("Version matrix", ("package", "required", "installed"), diagnosis.matrix, numbers=False)
    if diagnosis.missing:
        raise Exit(3)
