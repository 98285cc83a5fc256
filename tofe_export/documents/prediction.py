"""What a model says of images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from tofe_export.documents.base import Document, Part
from tofe_export.documents.fields import Count, Share, Text
from tofe_export.documents.images import ImagesRead


class ClassScore(Part):
    """A class: its index in the logits, its name ("" where the model does not say), and its softmax probability."""

    index: Count
    name: Text
    probability: Share


class Prediction(Part):
    """The most probable classes of one image, the best first; `image` is its file as it was named."""

    image: Text
    classes: tuple[ClassScore, ...]


class Predictions(Document):
    """Of several images, a sequence of `Prediction` in their order.

    Attributes:
        model: the name of its file.
        sha256: of that file; "" for a network that was never in one.
        backend, precision: what ran it.
        keep: keep count of each stage, those of every image.
        assumed: what nothing said of the model and had to be assumed, a sentence each.
        images: how many were read, and which were left out.
        notes: what the user should know about the result, a sentence each.
    """

    schema_: Literal["tofe-export/predict/1"] = Field(default="tofe-export/predict/1", alias="schema")
    model: Text
    sha256: Text = ""
    backend: Text
    precision: Text
    keep: tuple[Count, ...] = ()
    assumed: tuple[Text, ...] = ()
    images: ImagesRead = ImagesRead()
    notes: tuple[Text, ...] = ()
    rows: tuple[Prediction, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Prediction:
        return self.rows[index]

    def __iter__(self) -> Iterator[Prediction]:  # type: ignore[override]  # pydantic's goes over the fields
        return iter(self.rows)
