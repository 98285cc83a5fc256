"""Where on the Hugging Face hub a checkpoint was."""

from __future__ import annotations

from tofe_export.documents.base import Part
from tofe_export.documents.fields import Text


class HubRevision(Part):
    """A repository, and the commit of it that was taken."""

    repository: Text
    revision: Text
