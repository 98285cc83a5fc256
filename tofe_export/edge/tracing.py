"""What both converters begin with: the network, its weights as constants, traced for one image."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.export import ExportedProgram

from tofe_export.graph.deployable import Deployable
from tofe_export.model import backbones
from tofe_export.runners.quiet import native_messages_hidden

BATCH = 1  # a phone sees one image at a time, and XNNPACK plans its memory for shapes that it knows


def example(network: Deployable) -> tuple[Tensor]:
    """The arguments to trace with."""
    return (backbones.zero_images(network.tofe.vit, BATCH),)


def traced(network: Deployable) -> ExportedProgram:
    """The network in PyTorch's operators, tokens ranked by counting (`model.operators`)."""
    with torch.no_grad():
        return torch.export.export(network, example(network))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The converters tell of their own steps and of what is deprecated in them; neither helps our user."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        native_messages_hidden(),
    ):
        warnings.simplefilter("ignore")
        yield
