"""Other people's checkpoints, dense outputs and image sizes through the command line."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import timm
import torch

from tests.checkpoints.published_files import HINTED, dynamicvit, plain
from tests.cli.conftest import Run
from tests.helpers import TWO_STAGES, small_images, small_tofe
from tofe_export.checkpoints.checkpoint import load, save
from tofe_export.model.fixed_path import FixedPath

ARGUMENTS = ",".join(f"{name}={value}" for name, value in HINTED.items())
NAMED = ("--backbone", "deit_tiny_patch16_224", "--backbone-args", ARGUMENTS)


def run_onnx(path: Path, images: torch.Tensor) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"images": images.numpy()}), strict=True))


def test_dynamicvit_from_file_to_verified_model(tmp_path: Path, run: Run) -> None:
    model = dynamicvit(tmp_path / "d.pth")
    done = run("onnx", "d.pth", "--keep-rate", 0.5, *NAMED)
    assert done.returncode == 0, done.stderr
    assert "DynamicViT" in done.stdout
    assert "8,4,2 of 16 tokens (keep rate 0.5)" in done.stdout
    images = small_images(3)
    expected = model.forward_fixed(images, FixedPath((8, 4, 2))).logits.detach().numpy()
    np.testing.assert_allclose(run_onnx(tmp_path / "model.onnx", images)["logits"], expected, atol=1e-5)
    verified = run("verify", "model.onnx", "--against", "d.pth", "--samples", 8)
    assert verified.returncode == 0, verified.stderr  # neither backbone nor rate is given: the manifest knows


def test_a_plain_backbone_is_exported_dense_with_a_note(tmp_path: Path, run: Run) -> None:
    plain(tmp_path / "p.pth")
    done = run("onnx", "p.pth", *NAMED)
    assert done.returncode == 0, done.stderr
    assert "Note: It is dense" in done.stderr
    assert "100.0% of dense" in done.stdout
    manifest = json.loads((tmp_path / "model.onnx.json").read_text())
    assert (manifest["keep"], manifest["operators"], manifest["gmacs"]) == ([], [], manifest["dense_gmacs"])


@pytest.mark.slow
def test_evit_at_another_image_size(tmp_path: Path, run: Run) -> None:
    plain(tmp_path / "e.pth")
    done = run("onnx", "e.pth", "--selector", "cls-attention", "--keep-rate", 0.7, "--img-size", "48x32", *NAMED)
    assert done.returncode == 0, done.stderr
    assert "17,13,10 of 24 tokens" in done.stdout  # ceil of .7 of 24, of 17 + 1 and of 13 + 1
    assert run_onnx(tmp_path / "model.onnx", torch.zeros(2, 3, 48, 32))["logits"].shape == (2, 5)
    assert run("verify", "model.onnx", "--against", "e.pth", "--samples", 8).returncode == 0


@pytest.mark.parametrize("wanted", [pytest.param("features", marks=pytest.mark.slow), "tokens,logits"])
def test_dense_outputs(short: Path, tmp_path: Path, run: Run, wanted: str) -> None:
    done = run("onnx", short, "--outputs", wanted)
    assert done.returncode == 0, done.stderr
    assert "Train with --features" in done.stderr
    found = run_onnx(tmp_path / "model.onnx", small_images(2))
    assert found["features"].shape == (2, 16, 32)
    assert ("logits" in found) == ("logits" in wanted)
    verified = run("verify", "model.onnx", "--against", short, "--samples", 8, "--json", "verify.json")
    assert verified.returncode == 0, verified.stderr
    document = json.loads((tmp_path / "verify.json").read_text())
    assert document["features"]["max_abs"] < 1e-4
    assert (document["logits"] is None) == (wanted == "features")
    assert json.loads((tmp_path / "model.onnx.json").read_text())["rearrange"] == "elide"


def test_keep_ratios_follow_the_image_size(checkpoint: Path, run: Run) -> None:
    done = run("onnx", checkpoint, "--keep", "0.5,0.25,0.125", "--img-size", "64")
    assert done.returncode == 0, done.stderr
    assert "32,16,8 of 64 tokens (given)" in done.stdout


def test_inspect_shows_what_was_recognized(tmp_path: Path, run: Run) -> None:
    dynamicvit(tmp_path / "d.pth")
    document = json.loads(run("inspect", "d.pth", "--keep-rate", 0.5, "--json", "-", *NAMED).stdout)
    assert (document["recognised"], document["keep"]) == ("DynamicViT", [8, 4, 2])
    shown = run("inspect", "d.pth", *NAMED)
    assert shown.returncode == 0
    assert "recognized as" in shown.stdout


@pytest.mark.slow
def test_methods_of_one_backbone_share_their_baseline(short: Path, tmp_path: Path, run: Run) -> None:
    known, model = load(short), small_tofe(approximator="discard", **TWO_STAGES)
    save(tmp_path / "discard.pth", dataclasses.replace(known, model=model))
    for source, name in ((short, "a.onnx"), ("discard.pth", "b.onnx")):
        assert run("onnx", source, "-o", name).returncode == 0
    done = run("bench", "a.onnx", "b.onnx", "--batch", 1, "--rounds", 2, "--processes", 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("(dense)") == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--keep-rate", "0.5", "--keep", "8,4,2"], "--keep-rate says how many tokens to keep"),
        (["--img-size", "big"], "is not a size in pixels"),
        (["--img-size", "16x"], "is not a size in pixels"),
        (["--img-size", "33"], "cannot be cut into patches"),
        (["--outputs", "everything"], "is none of: logits, features, tokens"),
        (["--keep", "0.5,1.5,0.2"], "nor of ratios"),
        (["--keep", "0.5,4,0.2"], "nor of ratios"),
        (["--selector", "cls-attention"], "says itself what it is"),
    ],
)
def test_refusals(checkpoint: Path, tmp_path: Path, run: Run, options: list[str], words: str) -> None:
    done = run("onnx", checkpoint, *options)
    assert done.returncode == 2
    assert words in " ".join((done.stdout + done.stderr).replace("│", " ").split())
    assert not list(tmp_path.iterdir())


def test_features_of_a_network_that_discards(discarding: Path, tmp_path: Path, run: Run) -> None:
    done = run("onnx", discarding, "--outputs", "features")
    assert done.returncode == 2
    assert "discards tokens" in done.stderr
    assert not list(tmp_path.iterdir())


def test_what_is_assumed_is_said_last_and_can_be_forbidden(tmp_path: Path, run: Run) -> None:
    torch.manual_seed(0)
    weights = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=32, depth=12).state_dict()
    torch.save(weights, tmp_path / "bare.pth")
    strict = run("onnx", "bare.pth", "--strict")
    assert strict.returncode == 2
    assert "--backbone" in strict.stderr
    assert "omit --strict" in strict.stderr
    done = run("onnx", "bare.pth")
    assert done.returncode == 0, done.stderr
    assert (
        done.stderr.strip().splitlines()[-1].startswith("Assumed: By its shapes it is taken for deit_tiny_patch16_224")
    )
    manifest = json.loads((tmp_path / "model.onnx.json").read_text())
    assert len(manifest["assumed"]) == 1
    described = run("inspect", "bare.pth", "--json", "-")
    assert json.loads(described.stdout)["assumed"] == manifest["assumed"]


@pytest.mark.slow
def test_either_of_two_copies_is_verified_against_its_own(tmp_path: Path, run: Run) -> None:
    torch.manual_seed(0)
    weights = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=32, depth=2).state_dict()
    halves = {key: value / 2 for key, value in weights.items()}
    torch.save({"arch": "vit_tiny_patch16_224", "state_dict": weights, "state_dict_ema": halves}, tmp_path / "two.pth")
    hashes = []
    for name, options in (("auto", ()), ("model", ("--weights", "model"))):
        done = run("onnx", "two.pth", "-o", f"{name}.onnx", "--backbone-args", "depth=2", *options)
        assert done.returncode == 0, done.stderr
        assert "two copies" in done.stderr
        verified = run("verify", f"{name}.onnx", "--against", "two.pth", "--samples", 4)
        assert verified.returncode == 0, verified.stdout
        hashes.append(json.loads((tmp_path / f"{name}.onnx.json").read_text()))
    assert [manifest["weights"] for manifest in hashes] == ["ema", "model"]
    assert hashes[0]["weights_sha256"] != hashes[1]["weights_sha256"]


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "The Hugging Face hub could not be reached"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
    ],
)
def test_a_name_on_the_hub_without_a_network(environment: dict[str, str], why: str, tmp_path: Path) -> None:
    # A process of its own: the hub's client reads its environment when it is imported.
    command = [sys.executable, "-P", "-m", "tofe_export", "onnx", "hf-hub:owner/vit"]
    surroundings = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub"), **environment}
    done = subprocess.run(command, cwd=tmp_path, env=surroundings, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    problem, step = filter(None, done.stderr.splitlines())
    assert problem.startswith(f"Error: {why}")
    assert step.startswith("Next:  Type on a machine with a network: hf download owner/vit --local-dir DIR; ")
    assert not (tmp_path / "model.onnx").exists()
