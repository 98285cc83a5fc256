"""The page is whole by itself, says what the files say, and is the same for the same files."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.helpers import ONE_STAGE, small_tofe
from tofe_export.api.export import export
from tofe_export.api.load import load
from tofe_export.api.report import report
from tofe_export.checkpoints.checkpoint import Checkpoint, save
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.documents.verification import Check
from tofe_export.errors import InputError
from tofe_export.page.build import build_report


def test_one_page_that_needs_nothing_else(clean_run: Path) -> None:
    page = report(str(clean_run), images=2)
    text = page.read_text()
    assert page == clean_run / "report.html"
    loads = re.findall(r'(?:src|href)="([^"#]+)"', text)
    assert all(address.startswith("data:") for address in loads)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert "<script" not in text
    images = 2 * 4
    assert text.count("data:image/png;base64,") == images, "two images beside three stages"
    assert all(alt for alt in re.findall(r'<img[^>]*alt="([^"]*)"', text))
    assert "8, 5, 3" in text


def test_same_files_same_bytes(clean_run: Path, tmp_path: Path) -> None:
    first, second = (build_report(clean_run, tmp_path / name, images=1) for name in ("a.html", "b.html"))
    assert first.read_bytes() == second.read_bytes()


def test_a_failed_verification_is_said_first(clean_run: Path, tmp_path: Path) -> None:
    for name in ("ckpt.pth", "bench.json"):
        (tmp_path / name).write_bytes((clean_run / name).read_bytes())
    document = json.loads((clean_run / "verify.json").read_text())
    document |= {"passed": False, "failures": ["Stage 1 selected <other> tokens."]}
    (tmp_path / "verify.json").write_text(json.dumps(document))
    text = build_report(tmp_path, images=0).read_text()
    assert "Stage 1 selected &lt;other&gt; tokens." in text
    assert "<other>" not in text


def test_what_is_missing_comes_with_its_command(clean_run: Path, tmp_path: Path) -> None:
    (tmp_path / "ckpt.pth").write_bytes((clean_run / "ckpt.pth").read_bytes())
    text = build_report(tmp_path, images=0).read_text()
    assert "tofe-export onnx" in text
    assert "tofe-export verify" not in text, "there is no export to verify yet"
    for name in ("model.onnx", "model.onnx.json"):
        (tmp_path / name).write_bytes((clean_run / name).read_bytes())
    text = build_report(tmp_path, images=0).read_text()
    assert "tofe-export verify" in text
    assert "tofe-export bench" in text
    assert "tofe-export demo" not in text, "that would train over the checkpoint"


def test_refusals(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for folder, code in (
        (tmp_path / "nowhere", "no-run"),
        (tmp_path / "run", "no-run"),
        (Path(__file__), "run-not-a-folder"),
    ):
        with pytest.raises(InputError) as caught:
            build_report(folder)
        assert (caught.value.code, caught.value.details["path"]) == (code, folder)
    (tmp_path / "bench.json").write_text('{"schema": "tofe-export/bench/1", "rows": [{"name": "x"}]}')
    for options, code in (({}, "document-field"), ({"data": "digits"}, "data-unused")):
        with pytest.raises(InputError) as caught:
            build_report(tmp_path, images=1, **options)
        assert caught.value.code == code
        (tmp_path / "bench.json").write_text('{"schema": "tofe-export/bench/1", "rows": []}')


def test_evidence_about_another_export_is_named(clean_run: Path, tmp_path: Path) -> None:
    shutil.copytree(clean_run, tmp_path, dirs_exist_ok=True)
    assert 'class="notes"' not in build_report(tmp_path, images=0).read_text()
    manifest = json.loads((tmp_path / "model.onnx.json").read_text())
    manifest |= {"keep": [9, 4, 3], "gmacs": manifest["gmacs"] / 2}
    (tmp_path / "model.onnx.json").write_text(json.dumps(manifest))
    text = build_report(tmp_path, images=0).read_text()
    assert "verify.json is about an export with keep counts 8, 5, 3" in text
    assert "bench.json is about an export of another cost" in text
    assert "<strong>Outdated</strong>" in text
    assert "<strong>Passed</strong>" not in text


def test_evidence_about_another_file_of_the_same_kind_is_named(clean_run: Path, tmp_path: Path) -> None:
    shutil.copytree(clean_run, tmp_path, dirs_exist_ok=True)
    document = json.loads((tmp_path / "verify.json").read_text())
    (tmp_path / "verify.json").write_text(json.dumps(document | {"model_sha256": "0" * 64}))
    text = build_report(tmp_path, images=0).read_text()
    assert "verify.json is about another model.onnx than this one" in text
    assert "<strong>Outdated</strong>" in text


def test_images_that_are_gone_are_replaced_and_said(clean_run: Path, tmp_path: Path) -> None:
    model = small_tofe()
    saved = Checkpoint(model, (0.5, 0.3, 0.2), Preprocessing.of_backbone(model.vit), {}, str(tmp_path / "gone"))
    save(tmp_path / "ckpt.pth", saved)
    text = build_report(tmp_path, images=1).read_text()
    assert "are not here, so these are bundled photographs" in text
    with pytest.raises(InputError, match="gone"):
        report(tmp_path, images=1, data=tmp_path / "gone")


def test_labels_of_other_classes_count_nowhere(clean_run: Path, tmp_path: Path) -> None:
    """The network has five classes, the digits ten."""
    text = build_report(clean_run, tmp_path / "page.html", images=2, figures=tmp_path / "figures").read_text()
    assert "wrong: it is" not in text
    assert "(is " not in (tmp_path / "figures" / "token-maps.svg").read_text()


def test_no_command_is_proposed_that_would_be_refused(tmp_path: Path) -> None:
    dense, evit = small_tofe(selector="none"), small_tofe(selector="cls-attention", approximator="fuse")
    for model, proposed in ((dense, ""), (evit, "--keep-rate 0.7")):
        save(tmp_path / "ckpt.pth", Checkpoint(model, (), Preprocessing.of_backbone(model.vit), {}, "digits"))
        text = build_report(tmp_path, images=1).read_text()
        assert "--keep-from" not in text
        assert proposed in text
        assert ("selects no tokens" in text) == (model is dense)


@pytest.mark.parametrize("kind", ["cls-attention", "another size"])
def test_token_maps_are_of_the_network_that_was_exported(tmp_path: Path, kind: str) -> None:
    size = (48, 32) if kind == "another size" else None
    kinds = {} if size else {"selector": "cls-attention", "approximator": "fuse"}
    model = small_tofe(**kinds, **ONE_STAGE)
    saved = Checkpoint(model, (0.5,), Preprocessing.of_backbone(model.vit), {}, "digits")
    save(tmp_path / "ckpt.pth", saved)
    export(load(tmp_path / "ckpt.pth", image_size=size), tmp_path / "model.onnx", keep=(12,) if size else (8,))
    text = build_report(tmp_path, images=1).read_text()
    assert 'class="notes"' not in text
    assert f"of {24 if size else 16} tokens" in text
    assert ("48 × 32 pixels" in text) == bool(size)
    assert ("by threshold:" in text) == bool(size), "attention weights have no threshold"


def test_the_gate_and_what_was_not_checked_are_on_the_page(clean_run: Path, tmp_path: Path) -> None:
    (tmp_path / "ckpt.pth").write_bytes((clean_run / "ckpt.pth").read_bytes())
    verified = json.loads((clean_run / "verify.json").read_text())
    unseen = Check(name="stages", passed=None, message="The model does not show its <stages>.")
    verified["checks"].append(unseen.to_dict())
    (tmp_path / "verify.json").write_text(json.dumps(verified))
    timed = json.loads((clean_run / "bench.json").read_text())
    for kept in timed["rows"][1:]:
        kept |= {"speedup": 1.5, "speedup_low": 1.4, "speedup_high": 1.6}
    judged = {key: timed["rows"][1][key] for key in ("name", "backend", "precision", "batch")}
    judged |= {"baseline": 2.0, "speedup": 1.5, "verdict": "regressed"}
    timed["baseline"] = {"file": "old.json", "max_regression": 0.05, "passed": False, "rows": [judged]}
    (tmp_path / "bench.json").write_text(json.dumps(timed))
    text = build_report(tmp_path, images=0).read_text()
    assert "Not checked: The model does not show its &lt;stages&gt;." in text
    assert "Slower than old.json allows." in text
    assert "regressed" in text
    assert 'class="verdict bad"' in text
