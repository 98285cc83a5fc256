"""optimize and tune as they are typed."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run, program


@pytest.fixture(scope="module")
def folder(short: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With model.onnx, of two stages."""
    path = tmp_path_factory.mktemp("optimize")
    assert program(path)("onnx", short).returncode == 0
    return path


def test_a_file_for_each_runtime(folder: Path, short: Path) -> None:
    run = program(folder)
    done = run("optimize", "--for", "openvino")
    assert done.returncode == 0, done.stderr
    assert "Wrote model.openvino.onnx and model.openvino.onnx.json" in done.stdout
    assert "inline" in done.stdout
    again = run("optimize", "model.onnx", "-o", "fast.onnx")
    assert again.returncode == 0, again.stderr
    assert json.loads((folder / "fast.onnx.json").read_text())["options"]["target"] == "onnxruntime"
    checked = run("verify", "fast.onnx", "model.openvino.onnx", "--against", short, "--samples", 8)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "PASSED" in checked.stdout


def test_a_file_that_takes_pixels_and_names_classes(folder: Path, short: Path) -> None:
    run = program(folder)
    done = run("onnx", short, "--input", "image", "--outputs", "classes", "--top", 2, "-o", "served.onnx")
    assert done.returncode == 0, done.stderr
    assert "every pixel as timm prepares it, top-2 as the logits say" in " ".join(done.stdout.split())
    done = run("optimize", "model.onnx", "--input", "image", "--classes", 2, "-o", "fast-served.onnx")
    assert done.returncode == 0, done.stderr
    assert "every pixel as timm prepares it, top-2 as the logits say" in " ".join(done.stdout.split())
    checked = run("verify", "served.onnx", "fast-served.onnx", "--against", short, "--samples", 8)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    done = run("quantize", "served.onnx", "-o", "int8.onnx")
    assert (done.returncode, "which comes last" in done.stderr) == (2, True), done.stderr


def test_what_is_refused_says_what_to_type(folder: Path) -> None:
    run = program(folder)
    done = run("optimize", "--for", "tensorrt", "-o", "x.onnx")
    assert (done.returncode, "tofe-export trt" in done.stderr) == (2, True), done.stderr
    done = run("optimize", "--for", "onnxruntime", "--bf16", "-o", "x.onnx")
    assert (done.returncode, "--for openvino" in done.stderr) == (2, True), done.stderr
    assert run("onnx", "model.onnx").returncode == 2
    assert not (folder / "x.onnx").exists()


def test_tune_writes_counts_and_a_picture(short: Path, tmp_path: Path, run: Run) -> None:
    arguments = ("tune", short, "--macs", 0.9, "--samples", 8, "--rounds", 1, "--processes", 1, "--threads", 1)
    done = run(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "picked" in done.stdout
    keep = json.loads((tmp_path / "tune.json").read_text())["keep"]
    assert (tmp_path / "tune.png").stat().st_size > 1000
    exported = run("onnx", short, "--keep-from", "tune.json")
    assert exported.returncode == 0, exported.stderr
    assert json.loads((tmp_path / "model.onnx.json").read_text())["keep"] == keep


def test_tune_needs_one_goal(short: Path, run: Run) -> None:
    done = run("tune", short)
    assert done.returncode == 2
    assert "--latency-ms, --speedup and --macs" in done.stderr


def test_tune_leaves_somebodys_picture_alone(short: Path, tmp_path: Path, run: Run) -> None:
    goal = ("--macs", 0.9, "--samples", 4, "--rounds", 1, "--processes", 1, "--threads", 1)
    picture = tmp_path / "tune.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n\0mine")
    done = run("tune", short, *goal)
    assert (done.returncode, "is a picture" in done.stderr) == (2, True), done.stderr
    assert picture.read_bytes().endswith(b"mine")
    assert not (tmp_path / "tune.json").exists()
    for name in ("tune.png", "tune", "."):
        done = run("tune", short, *goal, "-o", name)
        assert (done.returncode, "does not end in .json" in done.stderr) == (2, True), done.stderr


@pytest.mark.slow
def test_tune_replaces_its_own_picture(short: Path, run: Run) -> None:
    for _ in range(2):
        done = run("tune", short, "--macs", 0.9, "--samples", 4, "--rounds", 1, "--processes", 1, "--threads", 1)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_next_command_repeats_what_describes_the_checkpoint(short: Path, run: Run) -> None:
    goal = ("--macs", 0.9, "--samples", 4, "--rounds", 1, "--processes", 1, "--threads", 1)
    done = run("tune", short, *goal, "--img-size", 48)
    assert done.returncode == 0, done.stderr
    following = next(line for line in done.stdout.splitlines() if line.startswith("Next:"))
    assert following.endswith("--keep-from tune.json --img-size 48")
    assert run("onnx", short, "--keep-from", "tune.json", "--img-size", 48).returncode == 0
    done = run("onnx", short, "--keep-from", "tune.json")
    assert (done.returncode, "in another network" in done.stderr) == (2, True), done.stderr
