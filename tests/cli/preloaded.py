"""Imported once by the process that tests of the command line are forked off: what every verb would do again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from torch.onnx._internal.exporter._registration import ONNXRegistry

from tests.traces import FOLDER, export_faster

export_faster(Path(os.environ[FOLDER]), pytest.MonkeyPatch())
ONNXRegistry.from_torchlib()
