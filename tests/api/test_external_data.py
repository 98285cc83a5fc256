"""A model above protobuf's limit (lowered here) goes the whole way: its weights in one file beside it, one set."""

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.files.test_writing import MANIFEST
from tests.helpers import exported_tofe, small_images, small_tofe
from tofe_export.api.bench import bench
from tofe_export.api.build import build
from tofe_export.api.export import export
from tofe_export.api.inspect import inspect
from tofe_export.api.quantize import quantize
from tofe_export.api.verify import verify
from tofe_export.artifacts.checks import write_checked
from tofe_export.artifacts.manifests import read_manifest
from tofe_export.artifacts.opened import OpenedOnnx
from tofe_export.artifacts.sets import atomic_artifact
from tofe_export.checkpoints.checkpoint import Checkpoint, save
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.documents.manifest import OnnxManifest
from tofe_export.errors import CheckFailedError, InputError
from tofe_export.files.reading import sha256
from tofe_export.graph import stored
from tofe_export.graph.stored import read_onnx
from tofe_export.precision.half import to_half
from tofe_export.runners.base import LargeModel
from tofe_export.runners.onnxruntime_runner import OnnxRuntimeRunner

KEEP = (8, 7, 6)
LIMIT = 100_000  # bytes; above what the graph takes, below what the weights do, even in 8 bits
SHORT_LIMIT = 60_000


@pytest.fixture
def lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "LIMIT_BYTES", LIMIT)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    model = small_tofe()
    classes = tuple(map(str, range(5)))
    save(
        tmp_path / "ckpt.pth",
        Checkpoint(model, (0.5, 0.4, 0.4), Preprocessing.of_backbone(model.vit), {}, "digits", classes),
    )
    return tmp_path


def put(target: Path, factor: float = 1) -> None:
    """A set as export writes it, of a network that was traced before; `factor` gives it another weight."""
    model = exported_tofe()
    weight = model.graph.initializers["vit.pos_embed"]
    assert weight.const_value is not None
    weight.const_value = ir.tensor(factor * weight.const_value.numpy(), name=weight.name)
    with atomic_artifact(target) as draft:
        write_checked(model, draft)
        draft.manifest = OnnxManifest.model_validate(MANIFEST)


def data_of(model: Path) -> str:
    data = read_manifest(model).external_data
    assert data is not None
    return data.file


def data_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.data"))


@pytest.mark.usefixtures("lowered")
@pytest.mark.slow
def test_every_verb_reads_it(run: Path) -> None:
    model = export(run / "ckpt.pth", run / "model.onnx", keep=KEEP)
    (data,) = data_files(run)
    assert data == f"model.onnx.{sha256(run / data)[:12]}.data"
    assert model.path.stat().st_size < LIMIT < (run / data).stat().st_size
    onnx.checker.check_model(str(model.path), full_check=True)

    verified = verify(model, against=run / "ckpt.pth", samples=8)
    assert verified.passed, verified.failures
    (run / "verify.json").write_text(verified.to_json())

    timed = bench(model, batches=(1,), rounds=1, processes=1, threads=1)
    assert len(timed.rows) == 2
    (run / "bench.json").write_text(timed.to_json())

    described = inspect(model.path).to_dict()
    assert described["manifest"]["external_data"]["file"] == data
    assert described["nodes"]["MatMul"] > 10

    recipe = run / "few.toml"
    recipe.write_text('[data]\nsource = "digits"\nsamples = 4\n')
    options = {"recipe": recipe, "cache": run / "ranges.npz", "samples": 8}
    int8 = quantize(model, run / "int8.onnx", batches=(1,), rounds=1, processes=1, threads=1, **options)
    agreement = int8.quantization.agreement
    assert [one.precision for one in agreement] == ["fp16", "int8"]
    assert agreement[0].top1_agreement is not None
    assert agreement[0].top1_agreement > 0.8
    assert len(data_files(run)) == 2
    assert int8.manifest.external_data is not None
    assert int8.manifest.external_data.file.startswith("int8.onnx.")
    assert verify(int8, against=run / "ckpt.pth", samples=4).artifacts[0].samples == 4

    for source, precision in ((model, "fp16"), (int8, "int8")):
        engine = build(source, run / f"{precision}.engine", precision=precision, backend="rtx")
        assert precision in engine.manifest.network.layers["MATRIX_MULTIPLY"]
        assert engine.path.stat().st_size > LIMIT
    from tofe_export.api.report import report

    assert report(run).stat().st_size > 10_000


@pytest.mark.usefixtures("lowered")
def test_an_export_replaces_the_set_and_a_moved_one_keeps_its_data(tmp_path: Path) -> None:
    model, moved = tmp_path / "model.onnx", tmp_path / "aside" / "model.onnx"
    put(model)
    (before,) = data_files(tmp_path)
    kept = {name: (tmp_path / name).read_bytes() for name in ("model.onnx", "model.onnx.json", before)}
    put(model)
    assert {name: (tmp_path / name).read_bytes() for name in kept} == kept, "the same bytes each time"
    put(model, 2)
    (after,) = data_files(tmp_path)
    assert after != before
    assert data_of(model) == after
    moved.parent.mkdir()
    for name, content in kept.items():
        (moved.parent / name).write_bytes(content)
    assert data_of(moved) == before, "the three were moved together"
    images = small_images(1).numpy()
    assert np.isfinite(OpenedOnnx(moved).run(images)["logits"]).all()
    moved.with_name(before).unlink()
    with pytest.raises(InputError) as caught:
        read_manifest(moved)
    assert (caught.value.code, caught.value.details["path"]) == ("external-data-missing", moved.with_name(before))
    with pytest.raises(InputError) as caught:
        OnnxRuntimeRunner(moved)
    assert caught.value.code == "onnxruntime-refuses"


@pytest.mark.usefixtures("lowered")
def test_a_failed_export_leaves_neither_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        assert data_files(tmp_path), "its data is there already"
        raise onnx.checker.ValidationError("no")

    monkeypatch.setattr(onnx.checker, "check_model", refused)
    with pytest.raises(CheckFailedError) as caught:
        put(tmp_path / "model.onnx")
    assert caught.value.code == "checker-refuses"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("lowered")
def test_a_link_to_a_model_is_read_with_its_data(tmp_path: Path) -> None:
    store, link = tmp_path / "store", tmp_path / "model.onnx"
    store.mkdir()
    link.symlink_to("store/blob.onnx")
    put(link)
    assert link.is_symlink()
    assert data_files(tmp_path) == []
    assert len(data_files(store)) == 1
    read_manifest(link)
    found = OpenedOnnx(link).run(small_images(1).numpy())
    assert {"logits", "stage0.perm"} <= set(found)


def test_below_the_limit_one_file_has_it_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = exported_tofe()
    whole = stored.serialize(model)
    assert isinstance(whole, bytes)

    def no_data(write: object) -> str:
        raise AssertionError

    for limit in (stored.LIMIT_BYTES, len(whole) + 10_000):
        monkeypatch.setattr(stored, "LIMIT_BYTES", limit)
        stored.write(model, tmp_path / "m.onnx", no_data)
        assert (tmp_path / "m.onnx").read_bytes() == whole
    monkeypatch.setattr(stored, "LIMIT_BYTES", len(whole) - 1)
    assert not stored.fits(model)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_large_model_is_the_same_model(precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = small_images(2).numpy()
    model = exported_tofe(short=True)
    if precision != "fp32":
        to_half(model, precision)
    expected = OnnxRuntimeRunner(stored.serialize(model)).run(images)["logits"]
    monkeypatch.setattr(stored, "LIMIT_BYTES", SHORT_LIMIT)
    in_memory = stored.serialize(model)
    assert isinstance(in_memory, LargeModel)
    assert len(in_memory.graph) < SHORT_LIMIT

    def write_data(write: Callable[[BinaryIO], None]) -> str:
        with (tmp_path / "weights").open("wb") as file:
            write(file)
        return "weights"

    stored.write(model, tmp_path / "m.onnx", write_data)
    in_file = read_onnx(tmp_path / "m.onnx")
    for content in (in_memory, stored.serialize(in_file), tmp_path / "m.onnx"):
        np.testing.assert_array_equal(OnnxRuntimeRunner(content).run(images)["logits"], expected)
    for copy in (stored.deserialize(in_memory), stored.copy_model(in_file), stored.copy_model(model)):
        opened = OpenedOnnx(stored.serialize(copy), precision=precision)
        found = opened.run(images)
        np.testing.assert_allclose(found["logits"], expected, atol=1e-3)
        assert "stage0.perm" in found
        assert opened.failing_stage(images) is None
        assert "vit.blocks.0.mlp.fc1" in opened.run_modules(images)
    monkeypatch.undo()
    assert stored.serialize(in_file) == stored.serialize(model), "read back it is the same"


def test_a_copy_can_be_rewritten() -> None:
    model = exported_tofe()
    before = stored.serialize(model)
    to_half(stored.copy_model(model), "fp16")
    assert stored.serialize(model) == before
