"""A small exported model, and the real TensorRT-RTX (a test dependency; builds without a GPU)."""

from pathlib import Path

import pytest

from tests.helpers import TWO_STAGES, small_tofe
from tofe_export.api.export import export
from tofe_export.checkpoints.checkpoint import Checkpoint, save
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.engine.backend import Backend, open_backend

KEEP = (8, 5)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = small_tofe(**TWO_STAGES)  # an engine takes as long to build as its network is deep
    path = tmp_path_factory.mktemp("engine") / "ckpt.pth"
    save(path, Checkpoint(model, (0.5, 0.3), Preprocessing.of_backbone(model.vit), {}, "photos"))
    return path


@pytest.fixture(scope="session")
def models(checkpoint: Path) -> dict[str, Path]:
    forms = ("plugin", "elide")
    return {
        form: export(checkpoint, checkpoint.with_name(f"{form}.onnx"), keep=KEEP, rearrange=form).path for form in forms
    }


@pytest.fixture(scope="session")
def rtx() -> Backend:
    return open_backend("rtx")
