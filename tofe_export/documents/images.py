"""Which images a job read and which it omitted: the `images` of every document about images."""

from __future__ import annotations

from tofe_export.documents.base import Part
from tofe_export.documents.fields import Count, Text


class LeftOutImage(Part):
    """A file or folder that was not read; `reason` is one of `data.image_log.Reason`, `detail` is for people."""

    name: Text
    reason: Text
    detail: Text = ""


class ImagesRead(Part):
    """How many images were read and left out, and why.

    `names` holds at most the first hundred left out; `kinds` counts those of a kind that is not read by their ending.
    """

    read: Count = 0
    left_out: Count = 0
    reasons: dict[Text, Count] = {}
    kinds: dict[Text, Count] = {}
    names: tuple[LeftOutImage, ...] = ()
    notes: tuple[Text, ...] = ()
