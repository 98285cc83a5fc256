"""The verbs on good input: files, fields, exit codes."""

import dataclasses
import json
from pathlib import Path

import onnx

from tests.cli.conftest import Run
from tofe_export.checkpoints.checkpoint import load, save
from tofe_export.files.reading import sha256


def test_the_manifest_says_where_the_model_came_from(checkpoint: Path, exported: Path) -> None:
    manifest = json.loads((exported.parent / "model.onnx.json").read_text())
    assert manifest["schema"] == "tofe-export/manifest/1"
    assert manifest["sha256"] == sha256(exported)
    assert manifest["source"] == {"file": "ckpt.pth", "sha256": sha256(checkpoint)}
    assert manifest["keep"] == [8, 5, 3]
    assert manifest["stages"] == [[1, 2], [2, 3], [3, 4]]
    assert manifest["precision"] == "fp32"
    assert manifest["rearrange"] == "plugin"
    assert set(manifest["preprocessing"]) >= {"mean", "std", "height", "width", "crop_pct", "interpolation"}
    assert manifest["operators"] == ["tofe::ScatterRearrange", "tofe::TokenPartition"]
    assert set(manifest["versions"]) >= {"tofe_export", "torch", "onnx", "onnxruntime"}
    assert 0 < manifest["gmacs"] < manifest["dense_gmacs"]
    onnx.checker.check_model(str(exported), full_check=True)


def test_export_twice_gives_the_same_bytes(checkpoint: Path, exported: Path, tmp_path: Path, run: Run) -> None:
    again = run("onnx", checkpoint, "-o", "again.onnx")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "again.onnx").read_bytes() == exported.read_bytes()


def test_verify_passes_and_writes_json(checkpoint: Path, exported: Path, tmp_path: Path, run: Run) -> None:
    done = run("verify", exported, "--against", checkpoint, "--samples", 16, "--json", "verify.json")
    assert done.returncode == 0, done.stderr
    assert "PASSED" in done.stdout
    document = json.loads((tmp_path / "verify.json").read_text())
    assert document["schema"] == "tofe-export/verify/1"
    assert document["passed"] is True
    assert document["samples"] == 16
    assert document["exported_from_this_file"] is True
    assert set(document["logits"]) == {"max_abs", "mean_abs", "cosine_min", "kl_mean", "kl_max"}
    assert [stage["index"] for stage in document["stages"]] == [0, 1, 2]
    for stage in document["stages"]:
        assert stage["selection_overlap"] == 1.0
        assert stage["flips"] == {"tokens": 0, "images": 0, "margin_median": None, "margin_max": None}
        assert stage["first_module"] is None
    assert [check["name"] for check in document["checks"]] == [
        *("preprocessing", "weights", "keep counts", "batch", "stage 0", "stage 1", "stage 2", "logits", "classes")
    ]
    assert all(check["passed"] for check in document["checks"])
    assert document["threshold"]["samples"] == 16


def test_verify_against_other_preprocessing_fails(checkpoint: Path, exported: Path, tmp_path: Path, run: Run) -> None:
    loaded = load(checkpoint)
    other = dataclasses.replace(loaded.preprocessing, mean=(0.1, 0.1, 0.1))
    save(tmp_path / "other.pth", dataclasses.replace(loaded, preprocessing=other))
    done = run("verify", exported, "--against", tmp_path / "other.pth", "--samples", 4)
    assert done.returncode == 1
    assert "images prepared in another way" in done.stderr


def test_verify_against_another_checkpoint(discarding: Path, exported: Path, run: Run) -> None:
    done = run("verify", exported, "--against", discarding)
    assert done.returncode == 2
    assert "another network" in done.stderr


def test_a_spoilt_model_exits_with_1(checkpoint: Path, exported: Path, run: Run) -> None:
    model = onnx.load(exported)
    (weight,) = [tensor for tensor in model.graph.initializer if tensor.name == "vit.head.bias"]
    values = onnx.numpy_helper.to_array(weight) + 1.0
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, exported)
    stale = run("verify", exported, "--against", checkpoint)
    assert stale.returncode == 2
    assert "does not belong" in stale.stderr
    manifest = exported.parent / "model.onnx.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "sha256": sha256(exported)}))
    done = run("verify", exported, "--against", checkpoint, "--samples", 8, "--json", "verify.json")
    assert done.returncode == 1
    assert "FAILED" in done.stdout
    assert json.loads((exported.parent / "verify.json").read_text())["passed"] is False


def test_keep_counts_from_data(checkpoint: Path, tmp_path: Path, run: Run) -> None:
    found = []
    for quantile in (0.1, 0.9):
        arguments = ("--keep-from", "digits", "--keep-samples", 24, "--keep-quantile", quantile)
        done = run("onnx", checkpoint, *arguments, "--rearrange", "elide", "--taps")
        assert done.returncode == 0, done.stderr
        found.append(json.loads((tmp_path / "model.onnx.json").read_text())["keep"])
    assert all(low <= high for low, high in zip(*found, strict=True))
    assert found[0] != found[1]
    outputs = [value.name for value in onnx.load(tmp_path / "model.onnx").graph.output]
    assert outputs[0] == "logits"
    assert any(name.endswith(".perm") for name in outputs)


def test_inspect_both_kinds(checkpoint: Path, exported: Path, run: Run) -> None:
    model = json.loads(run("inspect", exported, "--json", "-").stdout)
    assert model["kind"] == "onnx"
    assert [node["keep"] for node in model["operators"] if node["keep"] is not None] == [8, 5, 3]
    network = json.loads(run("inspect", checkpoint, "--json", "-").stdout)
    assert network["kind"] == "checkpoint"
    assert network["keep"] == [8, 5, 3]
    assert network["sha256"] == sha256(checkpoint)
    words = run("inspect", exported).stdout
    assert "stages.0/TokenPartition" in words


def test_bench_writes_json(exported: Path, tmp_path: Path, run: Run) -> None:
    done = run("bench", exported, "--batch", "1,2", "--rounds", 2, "--processes", 2, "--json", "bench.json")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert [row["batch"] for row in rows] == [1, 1, 2, 2]


def test_doctor_knows_this_machine(run: Run) -> None:
    done = run("doctor", "--json", "-")
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["missing"] is False
