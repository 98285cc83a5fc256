"""A small exported model, and the real TensorRT-RTX (a test dependency; builds without a GPU)."""

from pathlib import Path

import pytest

from tests.helpers import small_tofe
from tofe_export.checkpoints.checkpoint import Checkpoint, save
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.engine.backend import Backend, open_backend
from tofe_export.workflows.export_onnx import OnnxOptions, export_onnx
from tofe_export.workflows.keep_counts import KeepOptions

KEEP = (8, 5, 3)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = small_tofe()
    path = tmp_path_factory.mktemp("engine") / "ckpt.pth"
    save(path, Checkpoint(model, (0.5, 0.3, 0.2), Preprocessing.of_backbone(model.vit), {}, "photos"))
    return path


@pytest.fixture(scope="session")
def models(checkpoint: Path) -> dict[str, Path]:
    found = {}
    for form in ("plugin", "elide"):
        found[form] = checkpoint.with_name(f"{form}.onnx")
        export_onnx(checkpoint, found[form], OnnxOptions(KeepOptions(KEEP), rearrange=form == "plugin"))
    return found


@pytest.fixture(scope="session")
def rtx() -> Backend:
    return open_backend("rtx")
