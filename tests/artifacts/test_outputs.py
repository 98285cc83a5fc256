"""What cannot be written, or would cost the user a file, is refused before the work."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.numpy
import torch
from PIL import Image

from tests.helpers import refusal
from tofe_export.artifacts.file_kinds import Kind, recognise
from tofe_export.artifacts.outputs import Output, companions, require_folder, require_outputs


def document(schema: str) -> bytes:
    return json.dumps({"schema": schema}).encode()


def saved(save: Callable[[io.BytesIO], None]) -> bytes:
    content = io.BytesIO()
    save(content)
    return content.getvalue()


def onnx_model() -> bytes:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([], "g", [value], [value])
    return bytes(onnx.helper.make_model(graph, producer_name="").SerializeToString())


CONTENT: dict[Kind | None, list[bytes]] = {
    None: [b"hello", b"{}", b"{not json", b"[1]", b'{"schema": 3}', b"<note/>"],
    Kind.CHECKPOINT: [
        saved(lambda file: torch.save({"a": torch.zeros(2)}, file)),
        saved(lambda file: torch.save({"a": torch.zeros(2)}, file, _use_new_zipfile_serialization=False)),
        safetensors.numpy.save({"a": np.zeros(2)}),
    ],
    Kind.ONNX: [onnx_model()],
    Kind.MANIFEST: [document("tofe-export/manifest/1")],
    Kind.VERIFY: [document("tofe-export/verify/1"), document("tofe-export/verify-several/1")],
    Kind.BENCH: [document("tofe-export/bench/1")],
    Kind.QUANTIZE: [document("tofe-export/quantize/1")],
    Kind.INSPECTION: [document("tofe-export/inspect/1")],
    Kind.DIAGNOSIS: [document("tofe-export/doctor/1")],
    Kind.JUNIT: [b"<?xml version='1.0'?>\n<testsuites/>"],
    Kind.PAGE: [b"<!doctype html><html>"],
    Kind.PICTURE: [saved(lambda file: Image.new("L", (2, 2)).save(file, "PNG")), b"<?xml version='1.0'?>\n<svg/>"],
    Kind.METRICS: [b'{"phase": "dense"}\n{"phase": "tofe"}\n'],
    Kind.CALIBRATION: [saved(lambda file: np.savez(file, key=np.zeros(1), counts=np.zeros(1)))],
    Kind.ARCHIVE: [saved(lambda file: np.savez(file, other=np.zeros(1)))],
    Kind.BINARY: [b"\x7fELF\0\0"],
}
CASES = [(kind, content) for kind, contents in CONTENT.items() for content in contents]


@pytest.mark.parametrize(("kind", "content"), CASES)
def test_a_file_is_only_replaced_by_its_own_kind(tmp_path: Path, kind: Kind | None, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert recognise(path) is kind
    for other in (Kind.VERIFY, Kind.BENCH, Kind.PAGE, Kind.JUNIT, Kind.CHECKPOINT, Kind.PICTURE):
        if kind in (None, other):
            require_outputs([Output(path, other)])
            continue
        error = refusal(require_outputs, [Output(path, other)])
        assert error.code == "would-replace"
        assert f"is {kind}, which {other} would replace" in error.message
    assert path.read_bytes() == content


def test_an_engine_is_known_by_its_name(tmp_path: Path) -> None:
    engine, weights = tmp_path / "m.engine", tmp_path / "ckpt.pth"
    engine.write_bytes(b"ftrt\0\0")
    require_outputs([Output(engine, Kind.ENGINE)])
    weights.write_bytes(CONTENT[Kind.CHECKPOINT][0])
    for output in (Output(weights, Kind.ENGINE), Output(engine, Kind.ONNX)):
        assert refusal(require_outputs, [output]).code == "would-replace"


def test_a_model_stands_for_its_manifest(tmp_path: Path) -> None:
    model, manifest = tmp_path / "m.onnx", tmp_path / "m.onnx.json"
    both = [Output(model, Kind.ONNX), Output(manifest, Kind.QUANTIZE)]
    assert refusal(require_outputs, both).code == "would-overwrite"
    manifest.write_bytes(document("tofe-export/verify/1"))
    error = refusal(require_outputs, [Output(model, Kind.ONNX)])
    assert (error.code, error.details["path"]) == ("would-replace", manifest)


def test_nothing_that_is_read_is_written(tmp_path: Path) -> None:
    model, data = tmp_path / "model.onnx", tmp_path / "model.onnx.0123.data"
    data.touch()
    linked, hard = tmp_path / "linked", tmp_path / "hard"
    model.write_text("model")
    linked.symlink_to(model)
    os.link(model, hard)
    engine = tmp_path / "a.engine"
    (tmp_path / "a.engine.json").write_text(json.dumps({"source": {"file": "model.onnx"}}))
    for inputs in ([model, None], [engine]):
        require_outputs([Output(tmp_path / "v.json", Kind.VERIFY), Output(None, Kind.JUNIT)], inputs)
        for path in (model, linked, hard, tmp_path / "." / "model.onnx", tmp_path / "model.onnx.json", data):
            assert refusal(require_outputs, [Output(path, Kind.VERIFY)], inputs).code == "would-overwrite"
    assert companions(Path()) == [Path()]


def test_two_outputs_are_two_files(tmp_path: Path) -> None:
    twice = [Output(tmp_path / "v", Kind.VERIFY), Output(tmp_path / "x" / ".." / "v", Kind.JUNIT)]
    assert refusal(require_outputs, twice).code == "would-overwrite"
    require_outputs([Output(Path(os.devnull), kind) for kind in (Kind.VERIFY, Kind.JUNIT)])
    require_outputs([Output(Path("-"), Kind.VERIFY)])
    mixed = [Output(Path("-"), Kind.VERIFY), Output(Path("-"), Kind.JUNIT)]
    assert refusal(require_outputs, mixed).code == "two-on-standard-output"


def test_what_cannot_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    os.mkfifo(tmp_path / "fifo")
    require_outputs([Output(tmp_path / "new" / "folders" / "v.json", Kind.VERIFY)])
    for fine in ("file", "fifo"):
        require_outputs([Output(tmp_path / fine, Kind.VERIFY)])
    before = sorted(tmp_path.iterdir())
    for wrong, code, words in (
        (tmp_path, "folder", "it is a folder"),
        (Path(), "folder", "it is a folder"),
        (tmp_path / "file" / "v.json", "file-for-folder", "file is a file"),
        (tmp_path / ("x" * 250), "not-writable", "its name is too long"),
        (tmp_path / ("x" * 300), "not-writable", "its name is too long"),
        (tmp_path / "circle", "not-writable", "circle"),
        (Path("/proc/v.json"), "not-writable", "cannot be written"),
    ):
        error = refusal(require_outputs, [Output(wrong, Kind.VERIFY)])
        assert (error.code, error.exit_code) == (code, 2)
        assert words in error.message
    assert refusal(require_folder, tmp_path / "file" / "figures").code == "file-for-folder"
    assert sorted(tmp_path.iterdir()) == before, "nothing is made"
