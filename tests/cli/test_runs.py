"""Whole runs through the command line: the demo, and train to report on a folder of images."""

import functools
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.conftest import Run
from tofe_export.api import demo
from tofe_export.api.bench import bench
from tofe_export.cli import main as entry
from tofe_export.training.recipe import read_recipe

SMALL = "img_size=32,patch_size=8,embed_dim=32,depth=4,num_heads=2"


def test_the_demo_makes_every_file_it_promises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short = read_recipe("digits", {"dense_epochs": 1, "epochs": 1}, {"run.limit_batches": 2, "run.limit_val": 20})
    monkeypatch.setattr(demo, "RECIPE", short)
    monkeypatch.setattr(demo, "bench", functools.partial(bench, batches=(1, 2)))
    monkeypatch.setattr(sys, "argv", ["tofe-export", "demo", "-o", str(tmp_path / "demo")])
    with pytest.raises(SystemExit) as caught:
        entry.main()
    shown = capsys.readouterr().out
    assert not caught.value.code, shown
    assert "Held-out accuracy" in shown
    benchmark = json.loads((tmp_path / "demo" / "bench.json").read_text())
    (quoted,) = (row for row in benchmark["rows"] if row["batch"] == 1 and row["speedup_low"] != row["speedup_high"])
    certain = not quoted["speedup_low"] <= 1 <= quoted["speedup_high"]
    speed = "At batch 1: " + ("faster" if quoted["speedup"] > 1 else "slower") * certain
    assert speed in shown, "measured, not promised"
    assert speed in (tmp_path / "demo" / "report.html").read_text()
    assert "tofe-export quantize" in shown.rpartition("Next:")[2]
    names = {path.name for path in (tmp_path / "demo").iterdir()}
    promised = {"ckpt.pth", "model.onnx", "model.onnx.json", "verify.json", "bench.json", "report.html"}
    assert promised <= names
    assert not [name for name in names if name.endswith(".part")]
    verified = json.loads((tmp_path / "demo" / "verify.json").read_text())
    assert verified["passed"]
    assert verified["accuracy"] is not None


def test_train_export_and_report_on_a_folder(tmp_path: Path, run: Run) -> None:
    for label, name in enumerate(("dark", "light")):
        for index in range(12):
            path = tmp_path / "images" / name / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), (label * 200 + index,) * 3).save(path)
    trained = run(
        *("train", "--data", "images", "-o", "run", "--backbone", "vit_tiny_patch16_224", "--backbone-args", SMALL),
        *("--epochs", 1, "--dense-epochs", 1, "--batch-size", 8, "--device", "cpu"),
    )
    assert trained.returncode == 0, trained.stderr
    assert "Next:  tofe-export onnx run/ckpt.pth" in trained.stdout
    exported = run("onnx", "run/ckpt.pth", "-o", "run/model.onnx", "--data", "images")
    assert exported.returncode == 0, exported.stderr
    verified = run(
        "verify", "run/model.onnx", "--against", "run/ckpt.pth", "--data", "images", "--json", "run/verify.json"
    )
    assert verified.returncode == 0, verified.stderr
    assert "accuracy" in verified.stdout
    foreign = run("verify", "run/model.onnx", "--against", "run/ckpt.pth", "--data", "digits", "--samples", 4)
    assert "accuracy" not in foreign.stdout, "ten digits are not these two classes"
    reported = run("report", "run")
    assert reported.returncode == 0, reported.stderr
    page = (tmp_path / "run" / "report.html").read_text()
    assert "data:image/png;base64" in page
    assert "light" in page
