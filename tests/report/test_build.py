"""The page is whole by itself, says what the files say, and is the same for the same files."""

import json
import re
from pathlib import Path

import pytest

from tests.helpers import small_tofe
from tofe_export.bench.baseline import judge, read_baseline
from tofe_export.checkpoints.checkpoint import Checkpoint, save
from tofe_export.checkpoints.foreign import Hints
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.errors import InputError
from tofe_export.report import build_report
from tofe_export.workflows.bench_models import bench_models
from tofe_export.workflows.export_onnx import OnnxOptions, export_onnx
from tofe_export.workflows.keep_counts import KeepOptions
from tofe_export.workflows.verify_model import verify_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run leaves behind, made by the real steps."""
    out = tmp_path_factory.mktemp("run")
    model = small_tofe()
    checkpoint, exported = out / "ckpt.pth", out / "model.onnx"
    save(checkpoint, Checkpoint(model, (0.5, 0.3, 0.2), Preprocessing.of_backbone(model.vit), {}, "digits"))
    export_onnx(checkpoint, exported, OnnxOptions())
    verified = verify_model(exported, checkpoint, samples=8).document
    (out / "verify.json").write_text(json.dumps(verified))
    (out / "bench.json").write_text(json.dumps(bench_models([exported], (1,), rounds=3, threads=1)))
    return out


def test_one_page_that_needs_nothing_else(folder: Path) -> None:
    page = build_report(folder, images=2)
    text = page.read_text()
    assert page == folder / "report.html"
    loads = re.findall(r'(?:src|href)="([^"#]+)"', text)
    assert all(address.startswith("data:") for address in loads)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert "<script" not in text
    images = 2 * 4 + 2 * 3
    assert text.count("data:image/png;base64,") == images, "two images beside three stages, and attention three times"
    assert all(alt for alt in re.findall(r'<img[^>]*alt="([^"]*)"', text))
    assert "8, 5, 3" in text


def test_same_files_same_bytes(folder: Path, tmp_path: Path) -> None:
    first, second = (build_report(folder, tmp_path / name, images=1) for name in ("a.html", "b.html"))
    assert first.read_bytes() == second.read_bytes()


def test_a_failed_verification_is_said_first(folder: Path, tmp_path: Path) -> None:
    for name in ("ckpt.pth", "bench.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    document = json.loads((folder / "verify.json").read_text())
    document |= {"passed": False, "failures": ["Stage 1 selected <other> tokens."]}
    (tmp_path / "verify.json").write_text(json.dumps(document))
    text = build_report(tmp_path, images=0).read_text()
    assert "Stage 1 selected &lt;other&gt; tokens." in text
    assert "<other>" not in text


def test_what_is_missing_comes_with_its_command(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "ckpt.pth").write_bytes((folder / "ckpt.pth").read_bytes())
    text = build_report(tmp_path, images=0).read_text()
    assert "tofe-export onnx" in text
    assert "tofe-export verify" not in text, "there is no export to verify yet"
    for name in ("model.onnx", "model.onnx.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    text = build_report(tmp_path, images=0).read_text()
    assert "tofe-export verify" in text
    assert "tofe-export bench" in text
    assert "tofe-export demo" not in text, "that would train over the checkpoint"


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        build_report(tmp_path / "nowhere")
    with pytest.raises(InputError):
        build_report(tmp_path)
    (tmp_path / "bench.json").write_text('{"schema": "tofe-export/bench/1", "rows": [{"name": "x"}]}')
    with pytest.raises(InputError, match=r"bench\.json"):
        build_report(tmp_path)


def test_evidence_about_another_export_is_named(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert 'class="notes"' not in build_report(tmp_path, images=0).read_text()
    export_onnx(tmp_path / "ckpt.pth", tmp_path / "model.onnx", OnnxOptions(KeepOptions((9, 4, 3))))
    text = build_report(tmp_path, images=0).read_text()
    assert "verify.json is about an export with keep counts 8, 5, 3" in text
    assert "bench.json is about an export of another cost" in text
    assert "<strong>Outdated</strong>" in text
    assert "<strong>Passed</strong>" not in text


def test_evidence_about_another_file_of_the_same_kind_is_named(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    document = json.loads((tmp_path / "verify.json").read_text())
    (tmp_path / "verify.json").write_text(json.dumps(document | {"model_sha256": "0" * 64}))
    text = build_report(tmp_path, images=0).read_text()
    assert "verify.json is about another model.onnx than this one" in text
    assert "<strong>Outdated</strong>" in text


def test_images_that_are_gone_are_replaced_and_said(folder: Path, tmp_path: Path) -> None:
    model = small_tofe()
    saved = Checkpoint(model, (0.5, 0.3, 0.2), Preprocessing.of_backbone(model.vit), {}, str(tmp_path / "gone"))
    save(tmp_path / "ckpt.pth", saved)
    text = build_report(tmp_path, images=1).read_text()
    assert "are not here, so these are bundled photographs" in text
    with pytest.raises(InputError, match="gone"):
        build_report(tmp_path, images=1, data=str(tmp_path / "gone"))


@pytest.mark.parametrize("kind", ["cls-attention", "another size"])
def test_token_maps_are_of_the_network_that_was_exported(tmp_path: Path, kind: str) -> None:
    size = (48, 32) if kind == "another size" else None
    model = small_tofe() if size else small_tofe(selector="cls-attention", approximator="fuse")
    saved = Checkpoint(model, (0.5, 0.3, 0.2), Preprocessing.of_backbone(model.vit), {}, "digits")
    save(tmp_path / "ckpt.pth", saved)
    keep = KeepOptions((12, 6, 3) if size else (8, 5, 3))
    export_onnx(tmp_path / "ckpt.pth", tmp_path / "model.onnx", OnnxOptions(keep, hints=Hints(image_size=size)))
    text = build_report(tmp_path, images=1).read_text()
    assert 'class="notes"' not in text
    assert f"of {24 if size else 16} tokens" in text
    assert ("48 × 32 pixels" in text) == bool(size)
    assert ("by threshold:" in text) == bool(size), "attention weights have no threshold"


def test_the_gate_and_what_was_not_checked_are_on_the_page(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "ckpt.pth").write_bytes((folder / "ckpt.pth").read_bytes())
    verified = json.loads((folder / "verify.json").read_text())
    verified["checks"].append({"name": "stages", "passed": None, "message": "The model does not show its <stages>."})
    (tmp_path / "verify.json").write_text(json.dumps(verified))
    timed = json.loads((folder / "bench.json").read_text())
    for kept in timed["rows"][1:]:
        kept |= {"speedup": 1.5, "speedup_low": 1.4, "speedup_high": 1.6}
    recorded = {**timed, "rows": [timed["rows"][0], {**timed["rows"][1], "speedup": 2.0, "speedup_high": 2.1}]}
    (tmp_path / "old.json").write_text(json.dumps(recorded))
    timed["baseline"] = judge(timed, read_baseline(tmp_path / "old.json"), 0.05)
    assert timed["baseline"]["passed"] is False
    (tmp_path / "bench.json").write_text(json.dumps(timed))
    text = build_report(tmp_path, images=0).read_text()
    assert "Not checked: The model does not show its &lt;stages&gt;." in text
    assert "Slower than old.json allows." in text
    assert "regressed" in text
    assert 'class="verdict bad"' in text
