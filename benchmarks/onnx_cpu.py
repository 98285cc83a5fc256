"""DeiT-S at half the cost in ONNX Runtime on the CPU: export time and memory, parity, speed-up, realised fraction.

    python benchmarks/onnx_cpu.py [--json benchmarks/results/onnx_cpu.json] [--rounds 5] [--threads 2]

Random weights, 224 pixels, keep counts 96,49,27; both forms beside the dense backbone exported in the same way.
Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from tofe_export.api.bench import bench
from tofe_export.api.verify import verify
from tofe_export.checkpoints.checkpoint import Checkpoint, save
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.documents.machine import describe_machine, describe_versions
from tofe_export.files.writing import write_json
from tofe_export.model.config import ToFeConfig
from tofe_export.model.tofe import build_tofe

BACKBONE, KEEP = "deit_small_patch16_224", (96, 49, 27)
RESULTS = Path(__file__).parent / "results"


def make_checkpoint(path: Path) -> None:
    torch.manual_seed(0)
    model = build_tofe(ToFeConfig(BACKBONE)).eval()
    save(path, Checkpoint(model, tuple(count / model.tokens for count in KEEP), Preprocessing.of_backbone(model.vit)))


def export(checkpoint: Path, target: Path, form: str) -> dict[str, float]:
    """In a process of its own, as a user runs it, so that time and memory are the command's."""
    command = [sys.executable, "-m", "tofe_export", "onnx", checkpoint, "-o", target, "--rearrange", form]
    start = time.perf_counter()
    subprocess.run([str(part) for part in command], check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {"seconds": time.perf_counter() - start, "peak_gib": peak / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=RESULTS / "onnx_cpu.json")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = folder / "deit_s.pth"
        make_checkpoint(checkpoint)
        models = {form: folder / f"deit_s_{form}.onnx" for form in ("elide", "plugin")}
        exports = {form: export(checkpoint, path, form) for form, path in models.items()}
        parity = {
            form: verify(path, against=checkpoint, data="photos", samples=64).to_dict() for form, path in models.items()
        }
        measured = bench(
            list(models.values()), batches=(1, 8), rounds=options.rounds, threads=options.threads
        ).to_dict()
    document = {
        "schema": "tofe-export/benchmark/1",
        "command": f"python benchmarks/onnx_cpu.py --rounds {options.rounds} --threads {options.threads}",
        "machine": describe_machine().to_dict(),
        "versions": describe_versions(),
        "settings": {**measured["settings"], "backbone": BACKBONE, "keep": list(KEEP), "weights": "random"},
        "export": exports,
        "parity": {
            form: {key: found[key] for key in ("samples", "passed", "top1_agreement", "logits", "stages")}
            for form, found in parity.items()
        },
        "rows": measured["rows"],
    }
    write_json(options.json, document)
    print(json.dumps({"export": exports, "rows": measured["rows"]}, indent=1))


if __name__ == "__main__":
    main()
