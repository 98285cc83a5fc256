"""Repositories for Triton: the configuration against Triton's own schema, versions, and what is refused."""

import dataclasses
import os
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import tofe_export as tofe
from tests.helpers import SMALL_CLASSES, SMALL_KEEP, refusal, require_openvino, save_small
from tofe_export.artifacts.artifact import Artifact, open_artifact
from tofe_export.documents.manifest import EngineManifest
from tofe_export.engine.options import BatchProfile
from tofe_export.packages import kserve
from tofe_export.packages.triton import TritonSettings, config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ckpt.pth, plain.onnx (images to logits), served.onnx (pixels to classes)."""
    folder = tmp_path_factory.mktemp("package")
    save_small(folder / "ckpt.pth")
    tofe.export(folder / "ckpt.pth", folder / "plain.onnx", keep=SMALL_KEEP)
    tofe.export(folder / "ckpt.pth", folder / "served.onnx", keep=SMALL_KEEP, input="image", outputs="classes", top=3)
    return folder


def parsed(text: str) -> Any:
    """As Triton reads it, which refuses a name that it does not know."""
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="tritonclient is in the extra dev")
    from google.protobuf import text_format

    return text_format.Parse(text, schema.ModelConfig())


def test_a_model_of_pixels(folder: Path, tmp_path: Path) -> None:
    done = tofe.package(folder / "served.onnx", tmp_path / "repo", settings=TritonSettings(instances=2, threads=3))
    assert done.path == tmp_path / "repo" / "served"
    assert sorted(str(path.relative_to(done.path)) for path in done.path.rglob("*") if path.is_file()) == [
        "1/model.onnx",
        "1/model.onnx.json",
        "config.pbtxt",
        "labels.txt",
    ]
    assert (done.path / "1" / "model.onnx").read_bytes() == (folder / "served.onnx").read_bytes()
    assert open_artifact(done.path / "1" / "model.onnx").manifest == open_artifact(folder / "served.onnx").manifest
    told = parsed((done.path / "config.pbtxt").read_text())
    assert (told.name, told.backend, told.max_batch_size) == ("served", "onnxruntime", 8)
    [pixels] = told.input
    assert (pixels.name, pixels.data_type, list(pixels.dims)) == ("pixels", 2, [-1, -1, 3])  # 2 is TYPE_UINT8
    assert [(one.name, list(one.dims)) for one in told.output] == [("classes", [3]), ("probabilities", [3])]
    assert told.instance_group[0].count == 2
    assert told.parameters["intra_op_thread_count"].string_value == "3"
    assert told.dynamic_batching.max_queue_delay_microseconds == 100
    assert [one.batch_size for one in told.model_warmup] == [1, 8]
    assert list(told.model_warmup[0].inputs["pixels"].dims) == [32, 32, 3]
    assert (done.path / "labels.txt").read_text().splitlines() == list(SMALL_CLASSES)


def test_a_model_of_images(folder: Path, tmp_path: Path) -> None:
    done = tofe.package(folder / "plain.onnx", tmp_path, name="tofe.small-1")
    told = parsed((done.path / "config.pbtxt").read_text())
    assert told.name == "tofe.small-1"
    assert list(told.input[0].dims) == [3, 32, 32]
    assert [(one.name, list(one.dims), one.label_filename) for one in told.output] == [
        ("logits", [len(SMALL_CLASSES)], "labels.txt")
    ]
    assert list(told.model_warmup[0].inputs["images"].dims) == [3, 32, 32]
    assert int(told.parameters["intra_op_thread_count"].string_value) >= 1


def test_openvino_gets_its_batch_from_the_request(folder: Path, tmp_path: Path) -> None:
    require_openvino()
    tofe.optimize(folder / "plain.onnx", tmp_path / "ov.onnx", target="openvino", data="photos")
    done = tofe.package(tmp_path / "ov.onnx", tmp_path / "repo")
    told = parsed((done.path / "config.pbtxt").read_text())
    assert (told.backend, told.default_model_filename, told.max_batch_size) == ("openvino", "model.onnx", 0)
    assert list(told.input[0].dims) == [-1, 3, 32, 32]
    assert not told.HasField("dynamic_batching")
    assert refusal(tofe.package, tmp_path / "ov.onnx", tmp_path / "r", python=True).code == "openvino-in-python"


def engine(folder: Path, batch: BatchProfile, backend: str) -> Artifact:
    """What TensorRT would leave; its manifest is all that is read."""
    plain = open_artifact(folder / "plain.onnx")
    inputs, outputs = {"images": ("fp32", (-1, 3, 32, 32))}, {"logits": ("fp32", (-1, len(SMALL_CLASSES)))}
    options = {
        "batch": f"{batch.minimum}:{batch.optimum}:{batch.maximum}",
        "version_compatible": False,
        "hardware": "none",
        "compute_capabilities": (),
    }
    manifest = EngineManifest.model_validate(
        {
            **plain.manifest.shared(),
            "source": {"file": "plain.onnx", "sha256": ""},
            "backend": {"name": backend, "version": "10", "gpu": None},
            "operators": (),
            "network": {"layers": {}, "plugins": (), "inputs": inputs, "outputs": outputs},
            "options": options,
        }
    )
    return Artifact(folder / "model.engine", manifest)


def test_an_engine(folder: Path) -> None:
    told = parsed(config("tofe", engine(folder, BatchProfile(1, 4, 6), "tensorrt"), "tensorrt", TritonSettings()))
    assert (told.platform, told.max_batch_size) == ("tensorrt_plan", 6)
    assert told.instance_group[0].kind == 1  # KIND_GPU
    assert not told.parameters


def test_engines_that_triton_cannot_run(folder: Path, tmp_path: Path) -> None:
    rtx = engine(folder, BatchProfile(1, 4, 6), "rtx")
    assert refusal(tofe.package, rtx, tmp_path).code == "engine-for-triton"
    large = engine(folder, BatchProfile(4, 4, 8), "tensorrt")
    assert refusal(config, "tofe", large, "tensorrt", TritonSettings()).code == "engine-batch-for-triton"


def test_versions(folder: Path, tmp_path: Path) -> None:
    first = tofe.package(folder / "served.onnx", tmp_path, name="tofe")
    before = (first.path / "1" / "model.onnx").stat().st_ino
    second = tofe.package(folder / "served.onnx", tmp_path, name="tofe", settings=TritonSettings(batch=4))
    assert (first.version, second.version) == (1, 2)
    assert (first.path / "1" / "model.onnx").stat().st_ino == before, "the old version is left alone"
    assert parsed((first.path / "config.pbtxt").read_text()).max_batch_size == 4
    assert tofe.package(folder / "served.onnx", tmp_path, name="tofe", version=7).version == 7
    assert refusal(tofe.package, folder / "served.onnx", tmp_path, name="tofe", version=7).code == "version-exists"
    assert sorted(path.name for path in first.path.iterdir()) == ["1", "2", "7", "config.pbtxt", "labels.txt"]


@pytest.mark.parametrize("name", ["", "a b", "../up", ".hidden", 'quote"', "n" * 129])
def test_names_that_cannot_be(folder: Path, tmp_path: Path, name: str) -> None:
    assert refusal(tofe.package, folder / "plain.onnx", tmp_path / "repo", name=name).code == "model-name"
    assert not (tmp_path / "repo").exists()


@pytest.mark.parametrize("wrong", [{"instances": 0}, {"threads": 0}, {"batch": 0}, {"delay_us": -1}, {"batch": 10**9}])
def test_numbers_that_cannot_be(folder: Path, tmp_path: Path, wrong: dict[str, int]) -> None:
    settings = dataclasses.replace(TritonSettings(), **wrong)
    refusal(tofe.package, folder / "plain.onnx", tmp_path / "repo", settings=settings)
    assert not (tmp_path / "repo").exists()


def test_nothing_is_left_of_a_version_that_could_not_be_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tofe.package(folder / "served.onnx", tmp_path, name="tofe")

    def full(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    assert refusal(tofe.package, folder / "served.onnx", tmp_path, name="tofe").exit_code == 3
    assert sorted(path.name for path in (tmp_path / "tofe").iterdir()) == ["1", "config.pbtxt", "labels.txt"]


class _Tensor:
    def __init__(self, name: str, array: np.ndarray[Any, Any]) -> None:
        self.name, self.array = name, array

    def as_numpy(self) -> np.ndarray[Any, Any]:
        return self.array


def test_the_python_model_answers_each_request_by_itself(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its calls of Triton's module are recorded here; test_triton_server.py runs it inside Triton."""
    utils = types.ModuleType("triton_python_backend_utils")
    utils.Tensor = _Tensor  # type: ignore[attr-defined]
    utils.TritonError = str  # type: ignore[attr-defined]
    utils.InferenceResponse = lambda tensors=(), error=None: (list(tensors), error)  # type: ignore[attr-defined]
    utils.get_input_tensor_by_name = lambda request, name: request[name]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, utils.__name__, utils)
    done = tofe.package(folder / "served.onnx", tmp_path, name="tofe", python=True, settings=TritonSettings(threads=1))
    told = parsed((done.path / "config.pbtxt").read_text())
    assert (told.backend, told.parameters["threads"].string_value) == ("python", "1")
    module = types.ModuleType("model")
    exec((done.path / "1" / "model.py").read_text(), module.__dict__)
    model = module.TritonPythonModel()
    model.initialize(
        {
            "model_config": '{"parameters": {"threads": {"string_value": "1"}}}',
            "model_repository": str(done.path),
            "model_version": "1",
        }
    )
    noise = np.random.default_rng(0)
    sizes = [(1, 40, 50, 3), (2, 33, 32, 3), (1, 40, 50, 3), (1, 8, 8)]
    given = [noise.integers(0, 256, size, dtype=np.uint8) for size in sizes]
    responses = model.execute([{"pixels": _Tensor("pixels", array)} for array in given])
    session = model.session
    for array, (tensors, error) in zip(given[:3], responses, strict=False):
        assert error is None
        classes, probabilities = session.run(None, {"pixels": array})
        assert [tensor.name for tensor in tensors] == ["classes", "probabilities"]
        assert np.array_equal(tensors[0].array, classes)
        np.testing.assert_allclose(tensors[1].array, probabilities, atol=1e-6)
    assert "Invalid rank" in responses[3][1]


def test_a_cluster_gets_a_manifest_and_a_dockerfile(folder: Path, tmp_path: Path) -> None:
    settings = TritonSettings(instances=2, threads=3)
    asked = {"target": "kserve", "storage_uri": "s3://models/it's here", "settings": settings}
    done = tofe.package(folder / "served.onnx", tmp_path, name="on", **asked)
    assert {path.name for path in done.files} >= {"on.yaml", "Dockerfile", "config.pbtxt", "labels.txt"}
    service = yaml.safe_load((tmp_path / "on.yaml").read_text())
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert service["metadata"] == {"name": "on"}, "a text, though YAML has another meaning for it"
    model = service["spec"]["predictor"]["model"]
    assert (model["modelFormat"], model["protocolVersion"]) == ({"name": "triton"}, "v2")
    assert model["storageUri"] == "s3://models/it's here"
    assert model["resources"]["requests"] == {"cpu": "6"}
    assert "COPY . /models" in (tmp_path / "Dockerfile").read_text().splitlines()
    tofe.package(folder / "plain.onnx", tmp_path, name="plain", python=True)
    tofe.package(folder / "plain.onnx", tmp_path, name="other", **asked)
    assert (tmp_path / "on.yaml").is_file(), "the other service is left alone"
    assert "RUN pip install onnxruntime" in (tmp_path / "Dockerfile").read_text()


def test_an_engine_in_a_cluster_has_a_gpu_and_no_release_of_its_own(folder: Path) -> None:
    files = kserve.files_for(
        Path("nowhere"), "tofe", engine(folder, BatchProfile(1, 4, 6), "tensorrt").manifest, "s3://x", None
    )
    service, dockerfile = files.values()
    model = yaml.safe_load(service)["spec"]["predictor"]["model"]
    assert model["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert "runtimeVersion" not in model
    assert "TensorRT 10" in dockerfile


def test_what_a_cluster_does_not_take(folder: Path, tmp_path: Path) -> None:
    model, path = folder / "served.onnx", tmp_path / "repo"
    asked = {"target": "kserve", "storage_uri": "s3://x"}
    assert refusal(tofe.package, model, path, target="kserve").code == "no-storage"
    for name in ("Tofe", "1st", "a_b", "a-", "n" * 64):
        assert refusal(tofe.package, model, path, name=name, **asked).code == "service-name"
    assert refusal(tofe.package, model, path, python=True, **asked).code == "python-for-kserve"
    assert refusal(tofe.package, model, path, storage_uri="s3://x").code == "for-another-target"
    assert not path.exists()
    path.mkdir()
    (path / "Dockerfile").write_text("FROM mine")
    assert refusal(tofe.package, model, path, **asked).code == "would-overwrite"
    assert [file.name for file in path.iterdir()] == ["Dockerfile"]


def test_backends_that_compute_on_processors(folder: Path, tmp_path: Path) -> None:
    settings = TritonSettings(gpu=True)
    error = refusal(tofe.package, folder / "served.onnx", tmp_path, python=True, settings=settings)
    assert error.code == "backend-without-gpu"


def test_a_version_has_the_interface_that_clients_know(folder: Path, tmp_path: Path) -> None:
    done = tofe.package(folder / "served.onnx", tmp_path, name="tofe")
    before = sorted(path.name for path in done.path.iterdir())
    assert refusal(tofe.package, folder / "plain.onnx", tmp_path, name="tofe").code == "another-interface"
    assert refusal(tofe.package, folder / "served.onnx", tmp_path, name="tofe", python=True).code == "another-interface"
    assert sorted(path.name for path in done.path.iterdir()) == before


def test_a_configuration_that_cannot_be_written_leaves_no_version(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = tofe.package(folder / "served.onnx", tmp_path, name="tofe")
    allowed = os.access  # root may write everything
    monkeypatch.setattr(os, "access", lambda path, mode, **how: mode != os.W_OK and allowed(path, mode, **how))
    assert refusal(tofe.package, folder / "served.onnx", tmp_path, name="tofe").code == "write-protected"
    assert not (done.path / "2").exists()


def test_what_a_kill_left_is_swept_and_never_lies_in_the_repository(folder: Path, tmp_path: Path) -> None:
    left = tmp_path / ".repo.abcd1234.part"
    left.mkdir()
    (left / "1").mkdir()
    seen: list[list[str]] = []

    def copy(source: str, target: str) -> str:
        seen.append([path.name for path in (tmp_path / "repo").iterdir()])
        return str(copyfile(source, target))

    copyfile = shutil.copyfile
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shutil.copyfile", copy)
        tofe.package(folder / "served.onnx", tmp_path / "repo", name="tofe")
    assert seen
    assert not any(seen), "Triton takes every folder of a repository for a model"
    assert [path.name for path in tmp_path.iterdir()] == ["repo"]
