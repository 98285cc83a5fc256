"""Commands that would cost the user a file are refused before their work, by every verb."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.test_refusals import refused

MANIFEST = '{"schema": "tofe-export/manifest/1"}'
TWICE, OTHER = "would be overwritten", "would replace"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("quantize m.onnx --json m.int8.onnx", TWICE),
        ("quantize m.onnx --fp8 --json m.fp8.onnx.json", TWICE),
        ("quantize m.onnx -o m.onnx", TWICE),
        ("quantize m.onnx --cache m.onnx.json", TWICE),
        ("quantize m.onnx --sensitivity --json m.onnx", TWICE),
        ("quantize m.onnx --recipe r.toml --json r.toml", TWICE),
        ("quantize m.onnx --json other.onnx.json", OTHER),
        ("quantize m.onnx -o picture.onnx", OTHER),
        ("quantize m.onnx --cache ckpt.pth", OTHER),
        ("onnx ck.onnx -o ck.onnx", TWICE),
        ("onnx ck.onnx -o linked.onnx", TWICE),
        ("onnx ckpt.pth -o picture.onnx", OTHER),
        ("onnx ckpt.pth -o page.onnx", "a result of verify"),
        ("trt m.onnx -o ckpt.pth", OTHER),
        ("trt m.onnx --int8 --cache m.engine", TWICE),
        ("trt m.onnx --timing-cache m.onnx", TWICE),
        ("trt m.onnx --timing-cache ckpt.pth", OTHER),
        ("trt .", "is a folder"),
        ("verify m.onnx --against ckpt.pth --json ckpt.pth", TWICE),
        ("verify m.onnx --against ckpt.pth --junit m.onnx.json", TWICE),
        ("verify m.onnx --against ckpt.pth --json v --junit ./v", TWICE),
        ("verify m.onnx --against ckpt.pth --json other.onnx.json", OTHER),
        ("verify built.engine --against ckpt.pth --json m.onnx", TWICE),
        ("bench m.onnx --json m.onnx", TWICE),
        ("bench m.onnx --json base.json --baseline base.json", TWICE),
        ("bench m.onnx --json page.onnx.json", OTHER),
        ("train --data digits --init run/ckpt.pth -o run", TWICE),
        ("train --data digits -o run", "no state.pt to continue from"),
        ("train --data digits -o r.toml", "is a file"),
        ("train --data digits --init started/state.pt -o started", TWICE),
        ("demo -o run", "no state.pt to continue from"),
        ("demo -o mixed", OTHER),
        ("report run -o run/ckpt.pth", TWICE),
        ("report run -o run/model.onnx.json", TWICE),
        ("report run -o picture.onnx", OTHER),
        ("report run --figures r.toml", "is a file"),
        ("report run -o f/token-maps.png --figures f", TWICE),
    ],
)
def test_nothing_is_lost(
    line: str,
    words: str,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("run", "mixed", "started"):
        Path(folder).mkdir()
    for copy in ("ckpt.pth", "ck.onnx", "run/ckpt.pth", "started/state.pt"):
        shutil.copy(checkpoint, copy)
    for name in ("m.onnx", "base.json", "r.toml"):
        Path(name).write_text("x")
    for name in ("m.onnx.json", "other.onnx.json", "mixed/verify.json"):
        Path(name).write_text(MANIFEST)
    Path("built.engine.json").write_text('{"source": {"file": "m.onnx"}}')
    Path("page.onnx.json").write_text('{"schema": "tofe-export/verify/1"}')
    Image.new("L", (2, 2)).save("picture.png")
    Path("picture.png").rename("picture.onnx")
    Path("linked.onnx").symlink_to("ck.onnx")
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    code, text = refused(list(line.split()), monkeypatch, capsys)
    assert (code, words in text) == (2, True), text
    assert {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()} == before
