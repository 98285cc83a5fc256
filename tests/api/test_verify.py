"""Several artifacts of one checkpoint: told apart by name, size and what could not be run."""

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.helpers import refused_as, small_tofe
from tofe_export.api.export import export
from tofe_export.api.load import load
from tofe_export.api.verify import verify
from tofe_export.checkpoints.checkpoint import Checkpoint, save
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.parity.junit import to_junit

KEEP = (8, 5, 3)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("verify") / "ckpt.pth"
    model = small_tofe()
    save(path, Checkpoint(model, (0.5, 0.3, 0.2), Preprocessing.of_backbone(model.vit), {}, "digits"))
    export(path, path.with_name("model.onnx"), keep=KEEP)
    export(load(path, image_size=(64, 64)), path.with_name("large.onnx"), keep=(32, 16, 8))
    return path


def test_two_sizes_of_one_network_pass_each_with_its_own_threshold_path(checkpoint: Path) -> None:
    models = [checkpoint.with_name(name) for name in ("model.onnx", "large.onnx")]
    result = verify(models, against=checkpoint, samples=6)
    assert result.exit_code == 0, result.failures
    small, large = (one.threshold for one in result.artifacts)
    assert small is not None
    assert large is not None
    assert large.gmacs.dense > 2 * small.gmacs.dense


def test_a_loaded_checkpoint_is_compared_as_the_network_that_was_exported(checkpoint: Path) -> None:
    models = [checkpoint.with_name(name) for name in ("large.onnx", "model.onnx")]
    result = verify(models, against=load(checkpoint), samples=2, threshold=False)
    assert result.exit_code == 0, result.failures
    assert [one.exported_from_this_file for one in result.artifacts] == [True, True]


def test_the_weights_hash_is_of_the_file_and_not_of_what_was_made_of_it(checkpoint: Path) -> None:
    hashes = {
        json.loads(checkpoint.with_name(f"{name}.onnx.json").read_text())["weights_sha256"]
        for name in ("model", "large")
    }
    assert hashes == {load(checkpoint).weights_sha256}
    assert all(hashes)


def test_artifacts_of_the_same_file_name_are_told_apart(checkpoint: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for suffix in ("", ".json"):
            shutil.copy(checkpoint.with_name(f"model.onnx{suffix}"), tmp_path / folder)
    (tmp_path / "b" / "model.onnx").write_bytes(b"nothing")
    models = [tmp_path / folder / "model.onnx" for folder in ("a", "b")]
    result = verify(models, against=checkpoint, samples=4, threshold=False)
    assert [one.model for one in result.artifacts] == ["a/model.onnx", "b/model.onnx"]
    assert [one.passed for one in result.artifacts] == [True, False]
    root = ElementTree.fromstring(to_junit(result).encode())
    cases = [(case.get("classname"), case.get("name")) for case in root.iter("testcase")]
    assert len(cases) == len(set(cases))
    document = json.loads(result.to_json())
    assert document["schema"] == "tofe-export/verify-several/1"
    for one in document["artifacts"]:
        assert one["schema"] == "tofe-export/verify/1"
        assert one.keys() >= {"model", "passed", "samples", "top1_agreement", "logits", "stages", "failures"}


def test_a_file_given_twice_is_one_artifact(checkpoint: Path) -> None:
    model = checkpoint.with_name("model.onnx")
    again = model.parent / ".." / model.parent.name / "model.onnx"
    result = verify([model, str(again)], against=checkpoint, samples=2, threshold=False)
    assert len(result.artifacts) == 1
    assert json.loads(result.to_json())["schema"] == "tofe-export/verify/1"


def test_files_whose_names_read_alike_are_both_compared(checkpoint: Path, tmp_path: Path) -> None:
    models = [tmp_path / name for name in ("m\\xff.onnx", "m\udcff.onnx")]
    for model in models:
        for suffix in ("", ".json"):
            shutil.copy(checkpoint.with_name(f"model.onnx{suffix}"), f"{model}{suffix}")
    result = verify(models, against=checkpoint, samples=2, threshold=False)
    assert [one.passed for one in result.artifacts] == [True, True]


@pytest.mark.parametrize("samples", [0, -3])
def test_no_image_is_not_agreement(checkpoint: Path, samples: int) -> None:
    with refused_as("out-of-range", name="samples"):
        verify(checkpoint.with_name("model.onnx"), against=checkpoint, samples=samples)


def test_what_was_not_run_is_said_even_when_something_else_failed(checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    known = load(checkpoint)
    save(other, Checkpoint(small_tofe(seed=9), known.keep_ratios, known.preprocessing, {}, "digits"))
    for suffix in ("", ".json"):
        shutil.copy(checkpoint.with_name(f"model.onnx{suffix}"), tmp_path)
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    model = tmp_path / "model.onnx"
    result = verify(model, against=other, samples=4, threshold=False, provider="cuda")
    assert result.exit_code == 1
    last = result.artifacts[0].checks[-1]
    assert last.passed is None
    assert last.message.startswith("It was not run: This ONNX Runtime has no CUDAExecutionProvider")
