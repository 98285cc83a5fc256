"""action.yml: its step runs here as a runner of GitHub runs it, with the inputs' defaults in the environment."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

import tofe_export as tofe
from tests.helpers import SMALL_KEEP, save_small

ACTION = yaml.safe_load((Path(__file__).parents[2] / "action.yml").read_text())


def step(folder: Path, **given: str) -> subprocess.CompletedProcess[str]:
    """The step that verifies; `given` are inputs."""
    inputs = {name: str(one.get("default", "")) for name, one in ACTION["inputs"].items()} | given
    last: dict[str, Any] = ACTION["runs"]["steps"][-1]
    filled = {name: inputs[text.split(".")[1].split()[0]] for name, text in last["env"].items()}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", last["run"]]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **filled, "PATH": path}, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    folder = tmp_path_factory.mktemp("action")
    for seed in (0, 1):
        save_small(folder / f"{seed}.pth", seed)
    tofe.export(folder / "0.pth", folder / "model.onnx", keep=SMALL_KEEP)
    tofe.export(folder / "0.pth", folder / "with space.onnx", keep=SMALL_KEEP, rearrange="elide")
    return folder


def test_models_that_agree(folder: Path) -> None:
    done = step(folder, models="model.onnx\nwith space.onnx\n", against="0.pth", samples="8")
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((folder / "tofe-verify.json").read_text())
    assert [one["model"] for one in result["artifacts"]] == ["model.onnx", "with space.onnx"]
    assert ElementTree.parse(folder / "tofe-verify.xml").getroot().tag == "testsuites"


def test_another_checkpoint_fails_the_job(folder: Path) -> None:
    done = step(folder, models="model.onnx", against="1.pth", samples="8", tolerances="logits_max_abs=1e-3")
    assert done.returncode == 1, done.stdout + done.stderr


def test_inputs_are_never_run(folder: Path) -> None:
    done = step(folder, models="$(touch stolen).onnx; touch stolen", against="0.pth", data="`touch stolen`")
    assert done.returncode == 2
    assert not (folder / "stolen").exists()


def test_every_input_reaches_the_step() -> None:
    env = ACTION["runs"]["steps"][-1]["env"]
    assert {text.split(".")[1].split()[0] for text in env.values()} == set(ACTION["inputs"])
    assert "${{" not in ACTION["runs"]["steps"][-1]["run"]
