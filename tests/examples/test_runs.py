"""Each example runs as its user runs it; what it leaves behind agrees with PyTorch."""

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

import tofe_export as tofe
from examples import comparison, detection, segmentation
from examples.comparison import METHODS
from examples.freezing import Learner
from examples.scenes import Scenes, as_input
from tofe_export.artifacts.artifact import open_artifact
from tofe_export.model.fixed_path import FixedPath

TASKS = {segmentation: segmentation.Segmentation(), detection: detection.Detection()}
KEEP = "0.3 0.15 0.5"  # few steps freeze nothing yet; the last stage takes tokens back that the one before it froze
TINY = f"--epochs 3 --steps 2 --methods tofe --seeds 1 --held-out 12 --keep {KEEP} --width 32 --depth 4"


@pytest.mark.parametrize("example", TASKS, ids=lambda module: module.__name__)
def test_a_short_run_leaves_files_that_agree_with_pytorch(example: ModuleType, tmp_path: Path) -> None:
    rows = example.main([*TINY.split(), "-o", str(tmp_path), "--json", str(tmp_path / "figures.json")])
    task, folder = TASKS[example], tmp_path / "tofe-0"
    document = json.loads((tmp_path / "figures.json").read_text())
    assert document["schema"] == "tofe-export/benchmark/1"
    assert document["command"] == f"python -m {example.__name__} {TINY}"
    assert document["rows"] == rows
    assert [row["size"] for row in rows] == list(task.sizes)
    head = task.head(32, 10)
    head.load_state_dict(torch.load(folder / "head.pth"))
    for row in rows:
        scenes = Scenes("val").many(range(12), row["size"])
        images = as_input(scenes)
        model = tofe.load(folder / "ckpt.pth", image_size=row["size"]).model
        path = FixedPath(tuple(round(float(share) * model.tokens) for share in KEEP.split()), features=True)
        assert tuple(row["keep"]) == path.keep
        artifact = open_artifact(folder / f"features-{row['size']}.onnx")
        features = torch.from_numpy(artifact.open().run(images.numpy())["features"])
        with torch.no_grad():
            torch.testing.assert_close(features, model.forward_fixed(images, path).features, rtol=0, atol=1e-3)
            assert row["onnx"] == pytest.approx(task.score(head(features), scenes, 10), abs=1e-6)
        assert row["equal_features"] == 1
        assert row["macs_share"] < 0.8


def test_a_run_starts_from_the_dense_networks_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[float] = []

    def mark(learner: Learner, *_: object) -> None:
        """In place of training: notes the mark that it finds, and leaves the number of the call."""
        found.append(learner.model.vit.cls_token[0, 0, 0].item())
        learner.model.vit.cls_token.data.fill_(len(found))

    monkeypatch.setattr(comparison, "train_dense", mark)
    monkeypatch.setattr(comparison, "measure", lambda *_: {"size": 64, "macs_share": 1, "pytorch": 0, "onnx": 0})
    tiny = ["--seeds", "2", "--width", "32", "--depth", "4", "--methods", "dense"]
    segmentation.main([*tiny, "-o", str(tmp_path / "first")])
    segmentation.main([*tiny, "--init", str(tmp_path / "first"), "-o", str(tmp_path / "second")])
    # Per seed a dense phase and its continuation, whose result is what the first run saved: calls 2 and 4.
    assert found[4:] == [2, 5, 4, 7]


@pytest.mark.slow
@pytest.mark.parametrize("example", TASKS, ids=lambda module: module.__name__)
def test_a_full_run_meets_the_budget_and_has_learned(example: ModuleType, tmp_path: Path) -> None:
    rows = example.main(["--seeds", "1", "-o", str(tmp_path)])
    assert {row["method"] for row in rows} == set(METHODS)
    for row in rows:
        assert row["onnx"] == pytest.approx(row["pytorch"], abs=0.01)
        assert row["pytorch"] > 0.2, f"{row['method']} has learned nothing"
        if row["method"] == "dense":
            assert row["macs_share"] == 1
        elif row["size"] == TASKS[example].sizes[0]:
            assert 0.4 < row["macs_share"] < 0.6
