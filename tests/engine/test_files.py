"""Engines as files: what is refused before TensorRT sees it, and what is known of one without a GPU."""

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import refused_as
from tofe_export.api.build import build
from tofe_export.artifacts.artifact import Artifact, open_artifact
from tofe_export.artifacts.manifests import manifest_path
from tofe_export.engine import backend
from tofe_export.engine.backend import gpu_present
from tofe_export.engine.network import lacks_precision, layer_histogram, precisions
from tofe_export.engine.options import BatchProfile
from tofe_export.engine.runtime import EngineSession
from tofe_export.errors import InputError, MissingError
from tofe_export.files.reading import read_json
from tofe_export.files.writing import write_json


@pytest.fixture(scope="module")
def built(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("built") / "model.engine"
    return build(models["plugin"], target, precision="fp16", backend="rtx").path


@pytest.fixture
def engine(built: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    shutil.copytree(built.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / built.name


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_an_engine_that_was_cut_off_or_changed(engine: Path, keep: int) -> None:
    engine.write_bytes(engine.read_bytes()[:keep])
    with pytest.raises(InputError) as caught:
        open_artifact(engine)
    assert (caught.value.code, caught.value.details["path"]) == ("manifest-hash", engine)


def test_an_engine_without_its_manifest(engine: Path) -> None:
    manifest_path(engine).unlink()
    with pytest.raises(InputError) as caught:
        open_artifact(engine)
    assert (caught.value.code, caught.value.details["path"]) == ("manifest-missing", engine)


def change(engine: Path, **values: Any) -> None:
    manifest = read_json(manifest_path(engine))
    manifest["backend"] |= values
    write_json(manifest_path(engine), manifest)


def test_another_version_is_one_sentence_and_exit_3(engine: Path) -> None:
    change(engine, version="0.0.1")
    with pytest.raises(MissingError, match=r"was built by tensorrt_rtx 0\.0\.1; installed is") as caught:
        open_artifact(engine).open()
    error = caught.value
    assert (error.code, error.exit_code) == ("engine-version", 3)
    assert (error.details["path"], error.details["source"]) == (engine, engine.with_name("plugin.onnx"))
    assert error.details["options"].precision == "fp16"


def test_without_a_gpu_an_engine_is_exit_3(engine: Path) -> None:
    if gpu_present():
        pytest.skip("this machine has a GPU")
    with pytest.raises(MissingError) as caught:
        open_artifact(engine).open()
    assert (caught.value.code, caught.value.exit_code) == ("gpu-missing", 3)


def test_an_engine_has_no_graph(engine: Path) -> None:
    with pytest.raises(InputError) as caught:
        Artifact(engine, open_artifact(engine).manifest).graph  # noqa: B018 - it is computed on access
    assert caught.value.code == "not-onnx"


def test_inspect_says_where_it_knows_it_from(engine: Path) -> None:
    from tofe_export.api.inspect import inspect

    document = inspect(engine).to_dict()
    assert document["kind"] == "engine"
    assert document["from"] == ("engine" if gpu_present() else "manifest")
    assert document["precisions"]["fp16"] > document["precisions"]["fp32"]
    assert document["batch"] == "1:8:64"


def test_the_inspectors_words() -> None:
    layers = [
        {"Name": "a", "LayerType": "gemm", "Outputs": [{"Format/Datatype": "Half"}]},
        {"Name": "b", "LayerType": "gemm", "Outputs": [{"Format/Datatype": "Row major linear FP16 format"}]},
        {"Name": "c", "LayerType": "gemm", "Outputs": [{"Format/Datatype": "BFloat16"}]},
        {"Name": "d", "LayerType": "PluginV3", "Outputs": [{"Format/Datatype": "Int32"}, {}]},
        {"Name": "e", "LayerType": "softmax", "Outputs": [{"Format/Datatype": "Float"}]},
        {"Name": "f", "LayerType": "NoOp"},
        "only a name",
    ]
    information = json.dumps({"Layers": layers, "Bindings": ["images"]})
    assert layer_histogram(information) == {
        "NoOp": {"unknown": 1},
        "PluginV3": {"int32": 1},
        "gemm": {"bf16": 1, "fp16": 2},
        "softmax": {"fp32": 1},
    }
    assert precisions(information) == {"fp16", "bf16", "fp32", "int32"}


def test_an_engine_in_another_precision_is_seen_unless_it_is_one_lump() -> None:
    layer = {"LayerType": "gemm", "Inputs": [{"Format/Datatype": "Float"}], "Outputs": [{"Format/Datatype": "Float"}]}
    assert lacks_precision(json.dumps({"Layers": [layer] * 30}), "fp16")
    assert not lacks_precision(json.dumps({"Layers": [layer] * 30}), "fp32")
    assert not lacks_precision(json.dumps({"Layers": [layer]}), "fp16"), "a single fused layer tells nothing"
    half = {**layer, "Inputs": [{"Format/Datatype": "Half"}]}
    assert not lacks_precision(json.dumps({"Layers": [layer] * 30 + [half]}), "fp16")


def test_auto_takes_tensorrt_only_where_it_can_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "installed", lambda name: True)
    monkeypatch.setattr(backend, "gpu_present", lambda: False)
    assert backend.open_backend("auto").name == "rtx"
    monkeypatch.setattr(backend, "gpu_present", lambda: True)
    if importlib.util.find_spec("tensorrt") is None:
        with pytest.raises(MissingError) as caught:
            backend.open_backend("auto")
        assert (caught.value.code, caught.value.details["name"]) == ("backend-broken", "tensorrt")
    else:
        assert backend.open_backend("auto").name == "tensorrt"


@pytest.mark.parametrize(
    ("capability", "runs"), [((9, 0), False), ((8, 7), False), ((8, 9), True), ((12, 0), True), ((13, 0), True)]
)
def test_rtx_engines_run_on_the_gpus_of_rtx_alone(
    capability: tuple[int, int], runs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT-RTX 1.7 on an H200 (9.0) said so itself, when it was given an engine."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(backend, "installed", lambda name: name == "rtx")
    rtx = backend.open_backend("auto")
    assert (rtx.obstacle is None, backend.backend_for_running() == rtx) == (runs, runs)
    if not runs:
        assert f"compute capability {capability[0]}.{capability[1]}" in str(rtx.obstacle)
        with refused_as("gpu-unsupported", MissingError):
            EngineSession(b"", rtx, "fp32")


def test_without_any_tensorrt_nothing_is_timed_in_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(backend, "installed", lambda name: False)
    assert backend.backend_for_running() is None


@pytest.mark.parametrize(
    ("batch", "code"),
    [
        *((text, "batch-text") for text in ("", "a", "1:8", "1:2:3:4", "-1", "1.5")),
        *((sizes, "batch-order") for sizes in ("0:1:2", "4:2:8", 0, (1, 8), (4, 2, 8))),
        *((sizes, "out-of-range") for sizes in (10**9, "9" * 30, (1, 1, 10**9))),
    ],
)
def test_batches_that_make_no_sense(batch: str | int | tuple[int, ...], code: str) -> None:
    with pytest.raises(InputError) as caught:
        BatchProfile.of(batch)
    assert caught.value.code == code


def test_batches_of_every_kind() -> None:
    assert BatchProfile.of("1:8:64") == BatchProfile.of((1, 8, 64)) == BatchProfile(1, 8, 64)
    assert BatchProfile.of("8") == BatchProfile.of(8) == BatchProfile(8, 8, 8)
