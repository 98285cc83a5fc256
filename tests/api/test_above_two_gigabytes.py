"""A network above protobuf's limit for real: exported with three times its weights in memory, and read again."""

import json
import multiprocessing
import os
import resource
from pathlib import Path

import pytest

from tofe_export.artifacts.manifests import read_manifest
from tofe_export.graph.stored import LIMIT_BYTES

pytestmark = pytest.mark.slow
# The weights of the network on few tokens: what is tried is their size, and 16 tokens take a 16th of the time.
NETWORK = ("vit_huge_patch14_224", {"img_size": 56, "num_classes": 1000, "depth": 28})
MOST = 3.0  # times the weights


def _write_checkpoint(path: str) -> None:
    import torch

    from tofe_export.checkpoints.checkpoint import FORMAT, VERSION
    from tofe_export.model.config import ToFeConfig
    from tofe_export.model.tofe import build_tofe

    torch.manual_seed(0)
    model = build_tofe(ToFeConfig(*NETWORK)).eval()
    for stage in model.stages:
        torch.nn.init.normal_(stage.selector.out.weight)  # else every score is about the same
    state = {"format": FORMAT, "version": VERSION, "config": model.config.to_dict(), "keep_ratios": [0.5, 0.3, 0.2]}
    torch.save({**state, "model": model.state_dict()}, path)


def _export(folder: str) -> None:
    from tofe_export.api.export import export

    source, peaks = Path(folder) / "ckpt.pth", {}

    def report(task: str, done: int, total: int) -> None:
        peaks.setdefault(task, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)

    export(source, Path(folder) / "model.onnx", keep=(8, 5, 3), data="photos", progress=report)
    peaks["all"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    (Path(folder) / "peaks.json").write_text(json.dumps(peaks))


def _verify(folder: str) -> None:
    from tofe_export.api.inspect import inspect
    from tofe_export.api.verify import verify

    path = Path(folder)
    inspect(path / "model.onnx")
    options = {"data": "photos", "samples": 8, "threshold": False}
    result = verify(path / "model.onnx", against=path / "ckpt.pth", **options)
    (path / "verify.json").write_text(result.to_json())


def _in_a_process(work: object, argument: Path) -> None:
    """Memory is counted per process, and one that was forked counts its parent's: so it is started afresh."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=(os.fspath(argument),))
    process.start()
    process.join()
    assert process.exitcode == 0


def test_export_takes_three_times_the_weights(tmp_path: Path) -> None:
    _in_a_process(_write_checkpoint, tmp_path / "ckpt.pth")
    _in_a_process(_export, tmp_path)
    manifest = read_manifest(tmp_path / "model.onnx")
    assert manifest.external_data is not None
    weights = manifest.external_data.bytes
    peaks = json.loads((tmp_path / "peaks.json").read_text())
    print(f"weights {weights / 1e9:.2f} GB, peak", {task: f"{peak / weights:.2f}" for task, peak in peaks.items()})
    assert weights > LIMIT_BYTES
    assert (tmp_path / "model.onnx").stat().st_size < 10_000_000
    assert peaks["all"] <= MOST * weights
    _in_a_process(_verify, tmp_path)
    document = json.loads((tmp_path / "verify.json").read_text())
    assert document["passed"], document["failures"]
    assert document["samples"] == 8
