"""What a training step costs on a GPU: the dense backbone's, and ToFe's with its teacher, in float32 and bfloat16.

    python benchmarks/gpu_training.py [--json benchmarks/results/gpu_training.json] [--batch 256] [--backbone NAME]

Random weights and random images that lie on the GPU already, so that reading and preparing images does not count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from tofe_export.data.images import Batch
from tofe_export.documents.history import DENSE, TOFE
from tofe_export.documents.history import Phase as Name
from tofe_export.documents.machine import describe_machine, describe_versions
from tofe_export.documents.training_recipe import TrainingRecipe
from tofe_export.files.writing import write_json
from tofe_export.model import backbones
from tofe_export.training import setup
from tofe_export.training.phase import Phase, frozen_copy
from tofe_export.training.recipe import config_of, read_recipe
from tofe_export.training.seeds import seed_of

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
    arguments = {"backbone": options.backbone, "batch_size": options.batch}
    recipe = read_recipe("finetune", arguments, {"run.precision": "bf16" if amp else "fp32"})
    phases = {name: phase_of(name, recipe, setup.choose_device(options.device)) for name in (DENSE, TOFE)}
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


def phase_of(name: Name, recipe: TrainingRecipe, device: torch.device) -> Phase:
    model = setup.build_network(recipe, config_of(recipe), False, None)[0].to(device)
    return Phase(name, recipe, model, frozen_copy(model.vit) if name == TOFE else None, STEPS, device)


def timed_steps(phase: Phase, steps: int) -> tuple[float, int]:
    """The time that `steps` steps take, in seconds, and the peak of the memory that they allocate, in bytes."""
    size = phase.recipe.run.batch_size
    images = backbones.zero_images(phase.model.vit, size).normal_().to(phase.device)
    labels = torch.randint(0, phase.model.vit.num_classes, (size,), device=phase.device)
    batches = [Batch(images, labels, ("",) * size)] * steps
    on_gpu = phase.device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
    start = time.perf_counter()
    phase.model.train()
    for step, batch in enumerate(batches):
        phase.step([batch], step, seed_of(0, phase.name, 0, step))
    if on_gpu:
        torch.cuda.synchronize()
    lasted = time.perf_counter() - start
    return lasted, torch.cuda.max_memory_allocated() - held if on_gpu else 0


if __name__ == "__main__":
    main()
