"""A run folder with everything in it, made by the real steps."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.helpers import small_tofe
from tofe_export.api.bench import bench
from tofe_export.api.export import export
from tofe_export.api.verify import verify
from tofe_export.checkpoints.checkpoint import Checkpoint, save
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.documents.training_recipe import TrainingRecipe
from tofe_export.training.state import RunState, save_state

KEEP = (8, 5, 3)


@pytest.fixture(scope="session")
def full_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint with its teacher and logs, two exports, one of them damaged, verify.json of both and of a third file
    that cannot be used, bench.json."""
    out = tmp_path_factory.mktemp("run")
    model = small_tofe()
    ending = {"val_accuracy": 0.5, "dense_accuracy": 0.6, "macs_ratio": 0.612, "macs_budget": 0.6,
              "keep_mean": [0.5, 0.4, 0.4], "keep_std": [0.1, 0.08, 0.123]}  # fmt: skip
    preprocessing, classes = Preprocessing.of_backbone(model.vit), tuple(map(str, range(5)))
    saved = Checkpoint(model, (0.5, 0.4, 0.4), preprocessing, ending, "digits", classes)
    save(out / "ckpt.pth", saved)
    export(out / "ckpt.pth", out / "model.onnx", keep=KEEP, rearrange="plugin")
    export(out / "ckpt.pth", out / "elide.onnx", keep=KEEP, rearrange="elide")
    shutil.copy(out / "elide.onnx", out / "broken.onnx")
    manifest = json.loads((out / "elide.onnx.json").read_text()) | {"keep": [8, 5, 2]}
    (out / "elide.onnx.json").write_text(json.dumps(manifest))
    files = [out / name for name in ("model.onnx", "elide.onnx", "broken.onnx")]
    (out / "verify.json").write_text(verify(files, against=out / "ckpt.pth", samples=24).to_json())
    (out / "bench.json").write_text(bench(files[0], batches=(1, 2), rounds=3, processes=2, threads=1).to_json())
    teacher = small_tofe(seed=0).vit
    with torch.no_grad():
        for block in teacher.blocks:
            block.mlp.fc2.weight.mul_(1.1)
    epochs = [
        {"phase": phase, "epoch": number, "val_accuracy": 0.3 + 0.1 * number, "keep_mean": [0.5, 0.4, 0.4],
         "keep_std": [0.1] * 3, "macs_ratio": 0.6}
        for phase in ("dense", "tofe") for number in (1, 2)
    ]  # fmt: skip
    steps = [
        {"phase": phase, "epoch": epoch, "step": step, "time": 1.7e9, "seconds": 10.0 + step,
         "images_per_s": pace + step, "wait_share": 0.01 * step, "gpu_memory_gib": memory}
        for phase, pace, memory in (("dense", 900.0, 3.25), ("tofe", 400.0, 5.5))
        for epoch in (1, 2) for step in (1, 5, 9)
    ]  # fmt: skip
    (out / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in steps))
    recipe, no_epoch = TrainingRecipe(name="test").to_dict(), {"steps": 0, "sums": {}}
    weights = teacher.state_dict()
    save_state(out, RunState(recipe, {}, model.config.to_dict(), {}, "tofe", 2, no_epoch, {}, weights, {}, 0.5, epochs))
    return out


@pytest.fixture(scope="session")
def clean_run(full_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is left of that run when everything went well: a checkpoint, one export, its verify.json and bench.json."""
    out = tmp_path_factory.mktemp("clean")
    for name in ("ckpt.pth", "model.onnx", "model.onnx.json", "bench.json"):
        shutil.copy(full_run / name, out)
    verified = json.loads((full_run / "verify.json").read_text())
    (out / "verify.json").write_text(json.dumps(verified["artifacts"][0]))
    return out
