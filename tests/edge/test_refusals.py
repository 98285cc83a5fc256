"""What is refused about programs for phones, and in which words; no runtime is needed for that."""

import importlib.util
from pathlib import Path

import pytest

import tofe_export as tofe
from tests.helpers import SMALL_KEEP, refusal, save_noise, save_small
from tofe_export.artifacts.artifact import open_artifact
from tofe_export.artifacts.file_kinds import Kind, recognise
from tofe_export.artifacts.outputs import companions
from tofe_export.documents.manifest import FileIdentity, ProgramManifest
from tofe_export.errors import MissingError
from tofe_export.files.reading import sha256


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ckpt.pth, model.onnx, and model.pte, which is a program by its first bytes and its manifest alone."""
    folder = tmp_path_factory.mktemp("refused")
    save_small(folder / "ckpt.pth")
    made = tofe.export(folder / "ckpt.pth", folder / "model.onnx", keep=SMALL_KEEP)
    path = folder / "model.pte"
    path.write_bytes(b"\x40\0\0\0ET12" + bytes(60))
    shared = made.manifest.shared() | {"checkpoint": made.manifest.origin}
    manifest = ProgramManifest(
        **shared,
        kind="pte",
        sha256=sha256(path),
        source=FileIdentity(file="model.onnx", sha256=made.manifest.sha256),
        returns=("logits",),
    )
    (folder / "model.pte.json").write_text(manifest.to_json())
    return folder


@pytest.mark.parametrize(("runtime", "module"), [("executorch", "executorch"), ("litert", "litert_torch")])
def test_without_the_extra(folder: Path, runtime: str, module: str) -> None:
    if importlib.util.find_spec(module):
        pytest.skip(f"{runtime} is installed")
    error = refusal(tofe.program, folder / "model.onnx", checkpoint=folder / "ckpt.pth", runtime=runtime)
    assert isinstance(error, MissingError)
    assert error.next_step == f"pip install 'tofe-export[{runtime}]'"
    if runtime == "executorch":
        [verified] = tofe.verify(folder / "model.pte", against=folder / "ckpt.pth", samples=1).artifacts
        assert verified.passed is not True
        assert verified.error is not None
        assert "not installed" in verified.error.message


def test_a_name_that_hides_what_it_is(folder: Path) -> None:
    error = refusal(tofe.program, folder / "model.onnx", folder / "model.tflite", checkpoint=folder / "ckpt.pth")
    assert error.code == "program-name"
    assert error.next_step.endswith("model.pte.")


def test_the_onnx_file_is_never_overwritten(folder: Path, tmp_path: Path) -> None:
    picture = tmp_path / "picture.pte"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(30))
    error = refusal(tofe.program, folder / "model.onnx", picture, checkpoint=folder / "ckpt.pth")
    assert error.code == "would-replace"
    link = tmp_path / "link.pte"
    link.symlink_to(folder / "model.onnx")
    assert refusal(tofe.program, folder / "model.onnx", link, checkpoint=folder / "ckpt.pth").code == "would-overwrite"
    assert recognise(folder / "model.pte") is Kind.PROGRAM
    assert folder / "model.onnx" in companions(folder / "model.pte")


def test_another_checkpoint(folder: Path) -> None:
    save_small(folder / "other.pth", seed=1)
    error = refusal(tofe.program, folder / "model.onnx", checkpoint=folder / "other.pth")
    assert error.code == "another-network"
    assert "ckpt.pth" in error.next_step


def test_only_a_file_as_it_was_exported(folder: Path, tmp_path: Path) -> None:
    tofe.export(folder / "ckpt.pth", tmp_path / "ends.onnx", keep=SMALL_KEEP, input="image")
    tofe.optimize(folder / "model.onnx", tmp_path / "half.onnx", target="onnxruntime")
    refused = {
        name: refusal(tofe.program, path, checkpoint=folder / "ckpt.pth").code
        for name, path in {"ends": tmp_path / "ends.onnx", "optimized": tmp_path / "half.onnx"}.items()
    }
    assert refused == {"ends": "has-ends", "optimized": "optimized-already"}
    assert refusal(tofe.program, folder / "ckpt.pth", checkpoint=folder / "ckpt.pth").code == "not-onnx"
    assert (
        refusal(tofe.program, folder / "model.pte", tmp_path / "m.pte", checkpoint=folder / "ckpt.pth").code
        == "onnx-expected"
    )


def test_what_a_program_is_not_for(folder: Path, tmp_path: Path) -> None:
    program = folder / "model.pte"
    save_noise(tmp_path / "noise.png", 40, 40)
    refused = {
        "triton": refusal(tofe.package, program, tmp_path / "repository").code,
        "web": refusal(tofe.package, program, tmp_path / "site", target="web", runtime=_runtime(tmp_path)).code,
        "bench": refusal(tofe.bench, program).code,
        "quantize": refusal(tofe.quantize, program, tmp_path / "int8.onnx").code,
        "map": refusal(tofe.predict, program, tmp_path / "noise.png", token_map=tmp_path / "map.png").code,
    }
    assert refused == {
        "triton": "program-for-server",
        "web": "not-for-web",
        "bench": "program-not-timed",
        "quantize": "onnx-expected",
        "map": "program-without-taps",
    }
    with pytest.raises(tofe.InputError, match="a program for phones, not an ONNX file"):
        _ = open_artifact(program).graph


def _runtime(folder: Path) -> Path:
    from tofe_export.packages.web import RUNTIME

    for name in RUNTIME:
        (folder / name).write_bytes(b"")
    return folder


def test_inspect_needs_no_runtime(folder: Path) -> None:
    found = tofe.inspect(folder / "model.pte")
    assert found.kind == "program"
    assert found.manifest.runtime == "executorch"
