"""What a model says of an image."""

from __future__ import annotations

from tofe_export.documents.base import Part
from tofe_export.documents.fields import Count, Share, Text


class ClassScore(Part):
    """A class: its index in the logits, its name ("" where the model does not say), and its softmax probability."""

    index: Count
    name: Text
    probability: Share


class Prediction(Part):
    """The most probable classes of one image, the best first; `image` is its name."""

    image: Text
    classes: tuple[ClassScore, ...]
