"""What a training step costs on a GPU: the dense backbone's, and ToFe's with its teacher, in float32 and bfloat16.

    python benchmarks/gpu_training.py [--json benchmarks/results/gpu_training.json] [--batch 256] [--backbone NAME]

Random weights and random images that lie on the GPU already, so that reading and preparing images does not count.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from tofe_export.data.images import Batch
from tofe_export.documents.machine import describe_machine, describe_versions
from tofe_export.files.writing import write_json
from tofe_export.model import backbones
from tofe_export.model.config import ToFeConfig
from tofe_export.model.tofe import build_tofe
from tofe_export.progress import silent
from tofe_export.training import setup
from tofe_export.training.loop import Phase, run_epoch, unwatched
from tofe_export.training.settings import TrainSettings

WARM_UP, STEPS = 3, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "gpu_training.json")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backbone", default="deit_small_patch16_224")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    rows = [row for amp in (False, True) for row in measure_steps(options, amp)]
    document = {
        "schema": "tofe-export/benchmark/1",
        "command": f"python benchmarks/gpu_training.py --batch {options.batch} --rounds {options.rounds}",
        "machine": describe_machine().to_dict(),
        "versions": describe_versions(),
        "settings": {"backbone": options.backbone, "weights": "random", "images": "random", "steps": STEPS},
        "rows": rows,
    }
    write_json(options.json, document)
    print(json.dumps(rows, indent=1))


def measure_steps(options: argparse.Namespace, amp: bool) -> list[dict[str, Any]]:
    """A row for the dense phase and one for ToFe's, timed in turn."""
    settings = dataclasses.replace(TrainSettings(), amp=amp, device=options.device, batch_size=options.batch)
    phases = {name: phase_of(name, settings, options.backbone) for name in ("dense", "tofe")}
    seconds: dict[str, list[float]] = {name: [] for name in phases}
    memory = {}
    for turn in range(options.rounds + 1):
        for name, phase in phases.items():
            lasted, memory[name] = timed_steps(phase, WARM_UP if turn == 0 else STEPS)
            if turn:
                seconds[name].append(lasted / STEPS)
    dense = statistics.median(seconds["dense"])
    return [
        {
            "phase": name,
            "precision": "bf16" if amp else "fp32",
            "batch": options.batch,
            "step_ms": statistics.median(seconds[name]) * 1e3,
            "step_ms_spread": [min(seconds[name]) * 1e3, max(seconds[name]) * 1e3],
            "images_per_s": options.batch / statistics.median(seconds[name]),
            "times_dense": statistics.median(seconds[name]) / dense,
            "step_memory_bytes": memory[name],
        }
        for name in phases
    ]


def phase_of(name: str, settings: TrainSettings, backbone: str) -> Phase:
    torch.manual_seed(0)
    device = setup.choose_device(settings.device)
    model = build_tofe(ToFeConfig(backbone)).to(device)
    teacher = copy.deepcopy(model.vit).eval().requires_grad_(False) if name == "tofe" else None
    return Phase(name, 1, model, teacher, setup.build_optimizer(model, settings, name), settings, device)


def timed_steps(phase: Phase, steps: int) -> tuple[float, int]:
    """The time that `steps` steps take, in seconds, and the peak of the memory that they allocate, in bytes."""
    size = phase.settings.batch_size
    images = backbones.zero_images(phase.model.vit, size).normal_().to(phase.device)
    labels = torch.randint(0, phase.model.vit.num_classes, (size,), device=phase.device)
    batches = [Batch(images, labels, ("",) * size)] * steps
    on_gpu = phase.device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
    start = time.perf_counter()
    run_epoch(phase, 0, batches, steps, silent, unwatched)
    if on_gpu:
        torch.cuda.synchronize()
    lasted = time.perf_counter() - start
    return lasted, torch.cuda.max_memory_allocated() - held if on_gpu else 0


if __name__ == "__main__":
    main()
