"""bench --baseline and verify of several artifacts, as CI calls them."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.cli.conftest import Run


def test_bench_against_a_baseline(exported: Path, tmp_path: Path, run: Run) -> None:
    common = ("bench", exported, "--batch", "1", "--rounds", 2, "--processes", 3)
    assert run(*common, "--json", "baseline.json").returncode == 0
    recorded = json.loads((tmp_path / "baseline.json").read_text())
    for factor, code in ((0.01, 0), (1e6, 1)):  # a hundredth, and then far more, of the speed-up that there is
        for row in recorded["rows"][1:]:
            for name in ("speedup", "speedup_low", "speedup_high"):
                row[name] *= factor
            row["speedups"] = [one * factor for one in row["speedups"]]
        (tmp_path / "changed.json").write_text(json.dumps(recorded))
        done = run(*common, "--baseline", "changed.json", "--max-regression", "20%", "--json", "bench.json")
        assert done.returncode == code, done.stderr
        assert ("FAILED" if code else "PASSED") in done.stdout
        assert json.loads((tmp_path / "bench.json").read_text())["baseline"]["passed"] is (code == 0)
    one = run(*common[:-1], 1, "--baseline", "changed.json")
    assert one.returncode == 0, "of one process nothing is sure"
    assert "unsure" in one.stdout
    assert "give --processes 5" in one.stderr
    overwriting = run(*common, "--baseline", "baseline.json", "--json", "baseline.json")
    assert overwriting.returncode == 2
    assert "baseline.json would be overwritten" in overwriting.stderr
    assert run(*common, "--max-regression", "5%").returncode == 2
    assert run(*common, "--baseline", "nowhere.json").returncode == 2


def test_verify_of_several_artifacts(checkpoint: Path, exported: Path, tmp_path: Path, run: Run) -> None:
    elided = run("onnx", checkpoint, "-o", "elided.onnx", "--rearrange", "elide", "--keep", "9,4,3")
    assert elided.returncode == 0, elided.stderr
    common = ("verify", exported, "elided.onnx", "--against", checkpoint, "--samples", 8)
    done = run(*common, "--json", "verify.json", "--junit", "verify.xml")
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "verify.json").read_text())
    assert document["schema"] == "tofe-export/verify-several/1"
    assert [entry["keep"] for entry in document["artifacts"]] == [[8, 5, 3], [9, 4, 3]]
    root = ElementTree.parse(tmp_path / "verify.xml").getroot()
    assert [suite.get("name") for suite in root] == ["model.onnx", "elided.onnx"]
    assert {case.get("name") for case in root[0]} >= {"stage 0", "stage 1", "stage 2", "logits", "classes", "weights"}
    assert root.get("failures") == root.get("errors") == root.get("skipped") == "0"


def test_one_broken_artifact_does_not_hide_the_others(
    checkpoint: Path, exported: Path, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    done = run(
        *("verify", "broken.onnx", exported, "--against", checkpoint, "--samples", 8),
        *("--tolerance", "logits_max_abs=0", "--junit", "verify.xml"),
    )
    assert done.returncode == 1
    assert "Your own tolerance: logits_max_abs = 0" in done.stdout
    root = ElementTree.parse(tmp_path / "verify.xml").getroot()
    assert (root.get("errors"), root.get("failures")) == ("1", "1")
    failed = [case.get("name") for case in root.iter("testcase") if case.find("failure") is not None]
    assert failed == ["logits"]


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("logits_max_ab=1", "logits_max_abs=1"),
        ("fp33.cosine_min=1", "no precision 'fp33'"),
        ("cosine_min=2", "from 0 to 1"),
        ("logits_max_abs", "not NAME=VALUE"),
    ],
)
def test_wrong_tolerances_are_refused(checkpoint: Path, run: Run, option: str, complaint: str) -> None:
    done = run("verify", "model.onnx", "--against", checkpoint, "--tolerance", option)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_cuda_without_a_gpu_says_what_to_install(checkpoint: Path, exported: Path, tmp_path: Path, run: Run) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    for arguments in (("verify", exported, "--against", checkpoint, "--junit", "verify.xml"), ("bench", exported)):
        done = run(*arguments, "--provider", "cuda")
        assert done.returncode == 3
        assert "tofe-export[gpu]" in done.stderr
    case = next(ElementTree.parse(tmp_path / "verify.xml").getroot().iter("testcase"))
    assert case.find("skipped") is not None, "a machine that lacks something says nothing of the model"
    assert run("bench", exported, "--provider", "tpu").returncode == 2


def test_no_input_is_overwritten(checkpoint: Path, exported: Path, run: Run) -> None:
    before = {path: path.read_bytes() for path in (checkpoint, exported)}
    verify = ("verify", exported, "--against", checkpoint)
    for command in (
        (*verify, "--json", exported),
        (*verify, "--json", f"{exported}.json"),
        (*verify, "--junit", checkpoint),
        (*verify, "--json", "same", "--junit", "./same"),
        ("bench", exported, "--json", exported),
        ("quantize", exported, "--recipe", "digits", "--json", exported),
        ("report", checkpoint.parent, "-o", checkpoint),
    ):
        done = run(*command)
        assert done.returncode == 2, command
        assert "would be overwritten" in done.stderr
    assert {path: path.read_bytes() for path in before} == before
    assert not exported.with_name("same").exists()
