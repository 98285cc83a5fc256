"""What both converters need: an image to trace with, and quiet."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

from torch import Tensor

from tofe_export.graph.deployable import Deployable
from tofe_export.graph.export import quiet_exporter
from tofe_export.model import backbones
from tofe_export.runners.quiet import native_messages_hidden

_BATCH = 1  # a phone sees one image at a time, and XNNPACK plans its memory for shapes that it knows


def example(network: Deployable) -> tuple[Tensor]:
    """The arguments to trace with."""
    return (backbones.zero_images(network.tofe.vit, _BATCH),)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The converters tell of their own steps and of what is deprecated in them; neither helps our user."""
    with quiet_exporter(), contextlib.redirect_stderr(io.StringIO()), native_messages_hidden():
        yield
