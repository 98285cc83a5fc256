"""tofe-export doctor"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from tofe_export.cli import console


def doctor(json: Annotated[bool, typer.Option("--json", help="Print JSON instead of words.")] = False) -> None:
    """Say what this machine can run, and the next step for what is missing; exit 3 when something is."""
    from tofe_export.doctor import examine

    diagnosis = examine()
    if json:
        console.print_json({"schema": "tofe-export/doctor/1", **asdict(diagnosis), "missing": diagnosis.missing})
    else:
        marks = {"ok": "ok", "warn": "note", "missing": "MISSING"}
        rows = [(row.name, row.value, marks[row.status], row.next_step) for row in diagnosis.rows]
        console.table("This machine", ("", "found", "", "next step"), rows, numbers=False)
        console.table("Version matrix", ("package", "needed", "installed"), diagnosis.matrix, numbers=False)
    if diagnosis.missing:
        raise typer.Exit(3)
