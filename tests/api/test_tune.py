"""From a checkpoint to keep counts, and from there to a file with them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import TWO_STAGES, refused_as, small_tofe
from tofe_export.api.export import export
from tofe_export.api.tune import tune
from tofe_export.artifacts.artifact import open_artifact
from tofe_export.checkpoints.checkpoint import Checkpoint, load, save
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.documents.base import read_document
from tofe_export.documents.manifest import OnnxManifest
from tofe_export.documents.onnx_options import SessionSettings
from tofe_export.documents.tuning import Tuning, unfinished_path
from tofe_export.errors import CheckFailedError
from tofe_export.model.config import ToFeConfig
from tofe_export.model.tofe import build_tofe
from tofe_export.page.tuning_chart import write_tuning_picture
from tofe_export.tuning import run as tuning_run

QUICK: dict[str, Any] = {"samples": 16, "rounds": 1, "processes": 1, "threads": 1}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    model = small_tofe(num_classes=10, **TWO_STAGES)
    path = tmp_path_factory.mktemp("tune") / "ckpt.pth"
    classes = tuple(str(digit) for digit in range(10))
    save(path, Checkpoint(model, (0.5, 0.3), Preprocessing.of_backbone(model.vit), {}, "digits", classes))
    return load(path)


@pytest.fixture(scope="module")
def tuned(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tuning, Path]:
    path = tmp_path_factory.mktemp("tuned") / "tune.json"
    return tune(checkpoint, path, macs=0.8, **QUICK), path


def test_the_document_says_what_was_found_and_is_read_again(tuned: tuple[Tuning, Path]) -> None:
    tuning, path = tuned
    assert read_document(Tuning, path, "") == tuning
    assert tuning.finished
    assert len(tuning.staircase) == 16
    assert len(tuning.probes) == 5
    assert len(tuning.lost) == 2
    assert tuning.picked is not None
    for one in tuning.candidates:
        assert one.ms is not None
        assert one.speedup is not None
        assert one.accuracy is not None
    assert any(one.on_front for one in tuning.candidates)
    assert tuning.reached == (tuning.picked.macs_ratio <= 0.8)
    assert tuning.session is not None


def test_the_counts_go_into_an_export_with_the_session_parameters(
    tuned: tuple[Tuning, Path], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    tuning, path = tuned
    chosen = SessionSettings(threads=1, spinning=False, arena=False)
    other = tmp_path / "tune.json"
    other.write_text(tuning.replaced(session=chosen).to_json())
    artifact = export(checkpoint, tmp_path / "model.onnx", keep_from=other)
    assert artifact.manifest.keep == tuning.keep
    assert artifact.manifest.options.session == chosen
    assert artifact.manifest.options.keep_source == "tuned, tune.json"
    opened = open_artifact(artifact.path)
    assert isinstance(opened.manifest, OnnxManifest)
    options = opened.open()._session.get_session_options()  # type: ignore[attr-defined]
    assert options.intra_op_num_threads == 1
    assert not options.enable_cpu_mem_arena
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert path.exists()


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_where_it_was(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, calls = tmp_path / "tune.json", []
    real = tuning_run.judge

    def stopped_at_the_second(*arguments: Any) -> Any:
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(arguments[1])
        return real(*arguments)

    monkeypatch.setattr(tuning_run, "judge", stopped_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        tune(checkpoint, path, macs=0.8, target="any", **QUICK)
    left = read_document(Tuning, unfinished_path(path), "")
    assert not left.finished
    assert not path.exists()
    with refused_as("not-finished"):
        export(checkpoint, tmp_path / "model.onnx", keep_from=path)
    monkeypatch.setattr(tuning_run, "judge", lambda *arguments: calls.append(arguments[1]) or real(*arguments))
    monkeypatch.setattr(tuning_run, "measure_staircase", None)  # not again
    done = tune(checkpoint, path, macs=0.8, target="any", **QUICK)
    assert done.finished
    assert read_document(Tuning, path, "") == done
    assert not unfinished_path(path).exists()
    assert done.staircase == left.staircase
    assert done.probes == left.probes
    assert sorted(calls) == sorted(one.keep for one in done.candidates)


def test_an_earlier_result_stays_until_there_is_a_new_one(
    tuned: tuple[Tuning, Path], checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tune.json"
    path.write_text(tuned[1].read_text())
    monkeypatch.setattr(tuning_run, "judge", _stop)
    with pytest.raises(KeyboardInterrupt):
        tune(checkpoint, path, macs=0.5, **QUICK)
    assert path.read_text() == tuned[1].read_text()
    assert read_document(Tuning, unfinished_path(path), "").settings.macs == 0.5
    assert export(checkpoint, tmp_path / "model.onnx", keep_from=path).manifest.keep == tuned[0].keep


def _stop(*arguments: Any) -> Any:
    raise KeyboardInterrupt


def test_what_cannot_be_resumed_is_begun_anew(
    tuned: tuple[Tuning, Path], checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other settings, another network, and a document whose parts do not fit."""
    path, measured = tmp_path / "tune.json", []
    monkeypatch.setattr(tuning_run, "measure_staircase", lambda *arguments: measured.append(1) or _stop())
    left = tuned[0].replaced(finished=False, reached=None, keep=(), session=None, candidates=())
    assert left.config is not None
    short = {**left.to_dict(), "staircase": left.to_dict()["staircase"][:3]}
    for document in (
        left.replaced(settings=left.settings.replaced(samples=3)).to_dict(),
        left.replaced(config=left.config.replaced(stage_starts=(0,))).to_dict(),
        left.replaced(probes=tuple(probe.replaced(keep=(8,)) for probe in left.probes)).to_dict(),
        short,
    ):
        unfinished_path(path).write_text(json.dumps(document))
        with pytest.raises(KeyboardInterrupt):
            tune(checkpoint, path, macs=0.8, **QUICK)
    assert len(measured) == 4


def test_counts_for_another_network_of_the_same_weights_are_refused(
    tuned: tuple[Tuning, Path], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    other, config = tmp_path / "tune.json", tuned[0].config
    assert config is not None
    other.write_text(tuned[0].replaced(config=config.replaced(stage_starts=(0,))).to_json())
    with refused_as("tuning-of-another-network"):
        export(checkpoint, tmp_path / "model.onnx", keep_from=other)
    other.write_text(tuned[0].replaced(config=None).to_json())  # of an older version
    assert export(checkpoint, tmp_path / "model.onnx", keep_from=other).manifest.keep == tuned[0].keep


def test_weights_that_are_not_finite_are_refused_before_anything_is_timed(tmp_path: Path) -> None:
    model = small_tofe(num_classes=10, **TWO_STAGES)
    with torch.no_grad():
        model.vit.head.weight.fill_(float("nan"))
    diverged = Checkpoint(model, (0.5, 0.3), Preprocessing.of_backbone(model.vit), {}, "digits")
    with refused_as("weights", CheckFailedError):
        tune(diverged, tmp_path / "tune.json", macs=0.8, **QUICK)
    assert not list(tmp_path.iterdir())


def test_counts_for_other_weights_are_refused(tuned: tuple[Tuning, Path], tmp_path: Path) -> None:
    model = small_tofe(num_classes=10, seed=1, **TWO_STAGES)
    save(tmp_path / "other.pth", Checkpoint(model, (0.5, 0.3), Preprocessing.of_backbone(model.vit), {}, "digits"))
    with refused_as("tuning-of-another"):
        export(tmp_path / "other.pth", tmp_path / "model.onnx", keep_from=tuned[1])
    with refused_as("keep-without-images"):
        export(tmp_path / "other.pth", tmp_path / "model.onnx", keep_from=tuned[1], keep_quantile=0.5)
    (tmp_path / "broken.json").write_text(json.dumps({"schema": "tofe-export/tune/1"}))
    with refused_as("document-field"):
        export(tmp_path / "other.pth", tmp_path / "model.onnx", keep_from=tmp_path / "broken.json")


def test_arguments_that_do_not_fit_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "tune.json"
    for goals in ({}, {"speedup": 2.0, "macs": 0.5}):
        with refused_as("one-goal"):
            tune(checkpoint, path, **goals)
    for wrong in ({"macs": 1.5}, {"speedup": float("nan")}, {"latency_ms": 0.0}, {"macs": 0.5, "batch": 0}):
        with refused_as("out-of-range"):
            tune(checkpoint, path, **wrong)
    with refused_as("target-unknown"):
        tune(checkpoint, path, macs=0.5, target="tensorrt")  # type: ignore[arg-type]
    dense = build_tofe(ToFeConfig("vit_tiny_patch16_224", {"img_size": 32}, (), "none"))
    with refused_as("keep-of-dense"):
        tune(Checkpoint(dense, (), Preprocessing.of_backbone(dense.vit), {}, ""), path, macs=0.5)
    (tmp_path / "model.onnx").write_bytes(b"\x08\x0a\x12\x00rest")
    with refused_as("not-json-name"):
        tune(checkpoint, tmp_path / "model.onnx", macs=0.5)
    (tmp_path / "model.onnx").rename(tmp_path / "model.json")
    with refused_as("would-replace"):
        tune(checkpoint, tmp_path / "model.json", macs=0.5)
    assert not path.exists()


@pytest.mark.slow
def test_networks_that_discard_tokens_are_tuned_too(tmp_path: Path) -> None:
    """EViT's selection has no threshold and no parameters."""
    model = small_tofe(selector="cls-attention", approximator="fuse", num_classes=10, **TWO_STAGES)
    evit = Checkpoint(model, (0.7, 0.7), Preprocessing.of_backbone(model.vit), {}, "digits")
    tuning = tune(evit, macs=0.95, target="openvino", **QUICK)
    assert tuning.finished
    assert tuning.session is None
    assert all(list(one.keep) == sorted(one.keep, reverse=True) for one in tuning.candidates)
    assert all(one.accuracy is None for one in tuning.candidates)


def test_the_picture_is_drawn(tuned: tuple[Tuning, Path], tmp_path: Path) -> None:
    write_tuning_picture(tuned[0], tmp_path / "tune.png")
    assert (tmp_path / "tune.png").read_bytes().startswith(b"\x89PNG")
