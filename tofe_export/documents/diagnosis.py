"""What `doctor` says of this machine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tofe_export.documents.base import Document, Part
from tofe_export.documents.fields import Flag, Text

Status = Literal["ok", "warn", "missing"]


class Finding(Part):
    """One thing that was looked at; `next_step` says how to get what is missing."""

    name: Text
    value: Text
    status: Status = "ok"
    next_step: Text = ""


class Diagnosis(Document):
    """All findings, in the order to show them.

    Attributes:
        matrix: package, version that is required, version that is installed ("-" for none).
        missing: whether something that training, export, verify or bench requires is not there.
    """

    schema_: Literal["tofe-export/doctor/1"] = Field(default="tofe-export/doctor/1", alias="schema")
    rows: tuple[Finding, ...]
    matrix: tuple[tuple[Text, Text, Text], ...]
    missing: Flag
