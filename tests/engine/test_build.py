"""TensorRT-RTX really parses and builds every exported form, on a machine without a GPU."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from tofe_export.api.build import build
from tofe_export.api.export import export
from tofe_export.artifacts.manifests import read_manifest
from tofe_export.checkpoints.checkpoint import load, save
from tofe_export.documents.manifest import Network
from tofe_export.engine import build as engine_build
from tofe_export.engine.backend import Backend
from tofe_export.engine.build import build_engine
from tofe_export.engine.callbacks import Log, make_logger
from tofe_export.engine.network import check_precision
from tofe_export.engine.options import BatchProfile, BuildOptions
from tofe_export.errors import CheckFailedError, InputError
from tofe_export.files.reading import sha256
from tofe_export.graph.stored import read_onnx
from tofe_export.progress import silent


@pytest.mark.parametrize("form", ["plugin", "elide"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_every_form_and_precision(models: dict[str, Path], tmp_path: Path, form: str, precision: str) -> None:
    target = tmp_path / "model.engine"
    seen: list[tuple[str, int, int]] = []
    built = build(
        models[form],
        target,
        precision=precision,
        backend="rtx",
        batch=(1, 2, 4),
        progress=lambda *step: seen.append(step),
    )
    manifest = built.manifest
    assert manifest == read_manifest(target)
    assert manifest.sha256 == sha256(target)
    layers = manifest.network.layers
    assert set(layers["SOFTMAX"]) == set(layers["NORMALIZATION"]) == {"fp32"}
    products = layers["MATRIX_MULTIPLY"]
    if precision == "fp32":
        assert set(products) == {"fp32"}
    else:
        assert products[precision] > 10 * products["fp32"], "only the ends of the selectors stay in float32"
        assert products["fp32"] == 2
    assert manifest.network.inputs == {"images": ("fp32", (-1, 3, 32, 32))}
    assert manifest.network.outputs == {"logits": ("fp32", (-1, 5))}
    assert manifest.options.batch == "1:2:4"
    assert all(use.by == "function body" for use in manifest.operators)
    assert manifest.checked is not None
    assert manifest.checked.run is False
    assert manifest.source.sha256 == sha256(models[form])
    source = read_manifest(models[form])
    assert (manifest.checkpoint, manifest.classes) == (source.source, source.classes)
    done = [(task, count, total) for task, count, total in seen if count == total]
    assert "Building engine" in {task for task, _, _ in done}
    assert ("Parsing", 1, 1) in done
    options = BuildOptions(precision=precision, backend="rtx", batch=BatchProfile(1, 2, 4))
    assert BuildOptions.of(manifest.options) == options


def test_profiles_compute_capabilities_workspace_and_taps(models: dict[str, Path], tmp_path: Path) -> None:
    options = {"batch": 3, "workspace_mib": 64, "compute_capabilities": ("86", "120"), "taps": True}
    outputs = build(models["plugin"], tmp_path / "m.engine", backend="rtx", **options).manifest.network.outputs
    assert set(outputs) == {"logits", *(f"stage{s}.{what}" for s in range(2) for what in ("scores", "perm", "tokens"))}
    assert outputs["stage1.perm"] == ("int32", (-1, 16))


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_tensorrt_itself_builds_a_file_that_takes_pixels(
    checkpoint: Path, rtx: Backend, tmp_path: Path, crop_mode: str
) -> None:
    """By its own parser, since `build` refuses such a file; images of any size within the profile."""
    held = load(checkpoint)
    save(tmp_path / "ckpt.pth", replace(held, preprocessing=replace(held.preprocessing, crop_mode=crop_mode)))
    served = export(
        tmp_path / "ckpt.pth", tmp_path / "served.onnx", keep=(8, 5), input="image", outputs="classes", top=2
    )
    trt = rtx.module
    builder = trt.Builder(make_logger(trt, Log()))
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, make_logger(trt, Log()))
    assert parser.parse(served.path.read_bytes()), parser.get_error(0).desc()
    pixels = network.get_input(0)
    assert (pixels.name, pixels.dtype, tuple(pixels.shape)) == ("pixels", trt.uint8, (-1, -1, -1, 3))
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    profile.set_shape("pixels", (1, 16, 16, 3), (1, 48, 64, 3), (4, 256, 256, 3))
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None


def test_a_network_in_another_precision_is_refused(
    models: dict[str, Path], rtx: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_build, "_precision_of", lambda node: "fp16")
    with pytest.raises(CheckFailedError) as caught:
        build_engine(read_onnx(models["plugin"]), rtx, BuildOptions(), "fp32", silent)
    assert caught.value.code == "network-precision"
    layers = {"MATRIX_MULTIPLY": {"fp16": 3}, "CONVOLUTION": {"fp16": 1}}
    network = Network(layers=layers, plugins=(), inputs={}, outputs={})
    check_precision(network, {"fp16": 4})
    with pytest.raises(CheckFailedError, match="4 fp16 instead of 4 fp32"):
        check_precision(network, {"fp32": 4})


def test_ctrl_c_stops_the_build_and_leaves_the_old_engine(models: dict[str, Path], tmp_path: Path) -> None:
    target = tmp_path / "model.engine"
    target.write_bytes(b"old")

    def stop(task: str, done: int, total: int) -> None:
        if task == "Building engine":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(models["elide"], target, backend="rtx", progress=stop)
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["model.engine"]


def spoil_keep(model: ir.Model) -> None:
    node = next(node for node in model.graph if node.op_type == "TokenPartition")
    node.attributes["keep"] = ir.AttrInt64("keep", 99)


def spoil_dtype(model: ir.Model) -> None:
    node = next(node for node in model.graph if node.op_type == "TokenPartition")
    assert node.inputs[1] is not None
    node.inputs[1].dtype = ir.DataType.FLOAT16


def lose_body(model: ir.Model) -> None:
    model.functions.clear()


def foreign(model: ir.Model) -> None:
    next(iter(model.graph)).domain = "elsewhere"


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        (spoil_keep, "operator-inputs", "cannot keep 99 of 16 patch tokens"),
        (spoil_dtype, "operator-inputs", "takes scores as float32, not float16"),
        (lose_body, "operator-body-missing", "tofe::"),
        (foreign, "operator-unknown", "elsewhere::"),
    ],
)
def test_graphs_that_cannot_be_right(models: dict[str, Path], rtx: Backend, spoil: Any, code: str, words: str) -> None:
    model = read_onnx(models["plugin"])
    spoil(model)
    with pytest.raises(InputError, match=words) as caught:
        build_engine(model, rtx, BuildOptions(), "fp32", silent)
    assert caught.value.code == code
    assert caught.value.next_step


_REGISTERED = """
import sys, json
import tensorrt_rtx as trt

class Creator(trt.IPluginCreatorV3One):
    def __init__(self):
        trt.IPluginCreatorV3One.__init__(self)
        self.name, self.plugin_namespace, self.plugin_version = "TokenPartition", "tofe", "1"
        self.field_names = trt.PluginFieldCollection([])
    def create_plugin(self, name, fields, phase):
        return None

creator = Creator()
trt.get_plugin_registry().register_creator(creator, "tofe")
from tofe_export.errors import InputError
from tofe_export.api.build import build
try:
    build(sys.argv[1], sys.argv[2], backend="rtx")
except InputError as error:
    print(json.dumps([error.code, error.message]))
"""


def test_rtx_never_sees_a_registered_plugin(models: dict[str, Path], tmp_path: Path) -> None:
    command = [sys.executable, "-c", _REGISTERED, str(models["plugin"]), str(tmp_path / "m.engine")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    code, message = json.loads(done.stdout.splitlines()[-1])
    assert code == "plugins-registered"
    assert "(TokenPartition)" in message
    assert not list(tmp_path.iterdir())
