"""What can be known of DeiT-S engines without a GPU: FP16 accuracy in ONNX Runtime, TensorRT-RTX build time and memory.

    python benchmarks/engine_cpu.py [--json benchmarks/results/engine_cpu.json] [--samples 256]

Random weights, 224 pixels, keep counts 96,49,27. Crops of the bundled photographs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch

from tofe_export.artifacts.opened import OpenedOnnx
from tofe_export.checkpoints.checkpoint import Checkpoint, load, save
from tofe_export.data.images import batches
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.data.sources import open_source
from tofe_export.documents.machine import describe_machine, describe_versions
from tofe_export.files.writing import write_json
from tofe_export.graph.stored import read_onnx
from tofe_export.model.config import ToFeConfig
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.tofe import build_tofe
from tofe_export.parity.side_by_side import compare
from tofe_export.precision.half import to_half

_SHOWN = ("MATRIX_MULTIPLY", "CONVOLUTION", "SOFTMAX", "NORMALIZATION")
BACKBONE, KEEP = "deit_small_patch16_224", (96, 49, 27)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "engine_cpu.json")
    parser.add_argument("--samples", type=int, default=256)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = _checkpoint(folder / "deit_s.pth")
        model = folder / "model.onnx"
        keep = ",".join(map(str, KEEP))
        _tofe_export("onnx", str(checkpoint), "--keep", keep, "-o", str(model))
        builds = {
            precision: _build(model, folder / f"{precision}.engine", precision)
            for precision in ("fp32", "fp16", "bf16")
        }
        parity = _fp16_parity(checkpoint, model, folder / "half.onnx", options.samples)
    document = {
        "schema": "tofe-export/benchmark/1",
        "command": f"python benchmarks/engine_cpu.py --samples {options.samples}",
        "machine": describe_machine().to_dict(),
        "versions": describe_versions(),
        "settings": {"backbone": BACKBONE, "keep": list(KEEP), "weights": "random", "batch": "1:8:64"},
        "rtx_build": builds,
        "fp16_in_onnxruntime": parity,
    }
    write_json(options.json, document)
    print(json.dumps({"rtx_build": builds, "fp16_in_onnxruntime": parity}, indent=1))


def _checkpoint(path: Path) -> Path:
    torch.manual_seed(0)
    model = build_tofe(ToFeConfig(BACKBONE)).eval()
    ratios = tuple(count / model.tokens for count in KEEP)
    save(path, Checkpoint(model, ratios, Preprocessing.of_backbone(model.vit)))
    return path


def _tofe_export(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "tofe_export", *arguments], check=True, stdout=subprocess.DEVNULL)


def _build(model: Path, engine: Path, precision: str) -> dict[str, Any]:
    """The whole command, from its start to the engine in its place."""
    flags = [] if precision == "fp32" else [f"--{precision}"]
    code = (
        "import resource, sys, subprocess; p = subprocess.run(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(p.returncode)"
    )
    command = [sys.executable, "-m", "tofe_export", "trt", str(model), *flags, "--backend", "rtx", "-o", str(engine)]
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *command], check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    manifest = json.loads(engine.with_name(engine.name + ".json").read_text())
    return {
        "seconds": seconds,
        "peak_gib": int(done.stdout.splitlines()[-1]) / 2**20,
        "engine_mb": engine.stat().st_size / 1e6,
        "layers": {kind: manifest["network"]["layers"][kind] for kind in _SHOWN},
    }


def _fp16_parity(checkpoint: Path, model: Path, half: Path, samples: int) -> dict[str, Any]:
    graph = read_onnx(model)
    to_half(graph, "fp16")
    ir.save(graph, half)
    loaded = load(checkpoint)
    images = batches(open_source("photos", "any"), loaded.preprocessing, 8, limit=samples)
    agreement = compare(loaded.model, OpenedOnnx(half), FixedPath(KEEP), images, "fp16").agreement().to_dict()
    shown = ("passed", "samples", "top1_agreement", "logits", "logits_same_selection", "stages")
    return {key: agreement[key] for key in shown} | {"file_mb": half.stat().st_size / 1e6}


if __name__ == "__main__":
    main()
