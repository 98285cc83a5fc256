"""What a training step costs on a CPU: ToFe's beside the dense backbone's, and two processes beside one.

    python benchmarks/training_steps.py [--json benchmarks/results/training_steps.json] [--rounds 7] [--rows-only]

Random weights and random images in memory, so that reading and preparing images does not count. Memory is what autograd
keeps for the backward pass, each storage once. Without AVX-512 BF16 the row in bfloat16 is left out: there it takes
many times as long, and nobody would train so.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
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
from tofe_export.training.processes import Processes, joined
from tofe_export.training.recipe import config_of, read_recipe
from tofe_export.training.seeds import seed_of

CPU = torch.device("cpu")
STEPS = 4  # of a round
MOST_STEPS = 10_000
BF16 = "avx512_bf16"
NETWORKS = {"small": ("small", "fp32"), "cifar10": ("cifar10", "fp32"), "cifar10 bf16": ("cifar10", "bf16")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "training_steps.json")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows-only", action="store_true", help="without two processes beside one")
    parser.add_argument("--worker", action="store_true", help="one of the processes whose throughput is measured")
    options = parser.parse_args()
    if options.worker:
        work(options.rounds)
        return
    machine = describe_machine()
    rows = [
        measured(name, recipe, precision, options.rounds)
        for name, (recipe, precision) in NETWORKS.items()
        if precision != "bf16" or BF16 in machine.instruction_sets
    ]
    scaling = None if options.rows_only else processes_beside_one(options.rounds)
    document = {
        "schema": "tofe-export/benchmark/1",
        "command": f"python benchmarks/training_steps.py --rounds {options.rounds}{' --rows-only' * options.rows_only}",
        "machine": machine.to_dict(),
        "versions": describe_versions(),
        "settings": {"batch": 64, "threads": torch.get_num_threads(), "steps": STEPS, "rounds": options.rounds},
        "rows": rows,
        "processes": scaling,
    }
    write_json(options.json, document)
    print(json.dumps([rows, scaling], indent=1))


def recipe_of(name: str, precision: str, batch: int) -> TrainingRecipe:
    changes = {"run.precision": precision, "network.backbone_args.num_classes": 10}
    return read_recipe(name, {"batch_size": batch}, changes)


def phase_of(name: Name, recipe: TrainingRecipe, processes: Processes | None = None) -> Phase:
    model = setup.build_network(recipe, config_of(recipe), False, None)[0].train()
    teacher = frozen_copy(model.vit) if name == TOFE else None
    return Phase(name, recipe, model, teacher, MOST_STEPS, CPU, processes or Processes())


def batch_for(phase: Phase) -> Batch:
    size = phase.batch_size
    images = backbones.zero_images(phase.model.vit, size).normal_()
    return Batch(images, torch.randint(0, phase.model.vit.num_classes, (size,)), ("",) * size)


def seconds_of(phase: Phase, batch: Batch) -> float:
    begun = time.perf_counter()
    for number in range(STEPS):
        phase.step([batch], number, seed_of(0, phase.name, 0, number))
    return (time.perf_counter() - begun) / STEPS


def teacher_seconds(phase: Phase, batch: Batch) -> float:
    ends = [blocks.stop for blocks in phase.model.stage_blocks]
    assert phase.teacher is not None
    begun = time.perf_counter()
    with torch.no_grad(), torch.autocast("cpu", phase.dtype, enabled=phase.dtype != torch.float32):
        for _ in range(STEPS):
            backbones.dense_tokens(phase.teacher, batch.images, ends)
    return (time.perf_counter() - begun) / STEPS


def kept_bytes(phase: Phase, batch: Batch) -> int:
    storages: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    own = sum(one.untyped_storage().nbytes() for one in phase.model.parameters())
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        phase.step([batch], 0, 0)
    return sum(storages.values()) - own


def measured(name: str, recipe_name: str, precision: str, rounds: int) -> dict[str, Any]:
    recipe = recipe_of(recipe_name, precision, 64)
    dense, tofe = phase_of(DENSE, recipe), phase_of(TOFE, recipe)
    batch = batch_for(dense)
    times: dict[str, list[float]] = {"dense": [], "tofe": [], "teacher": []}
    for turn in range(rounds + 1):
        now = seconds_of(dense, batch), seconds_of(tofe, batch), teacher_seconds(tofe, batch)
        for key, value in zip(times, now, strict=True):
            times[key] += [value] if turn else []
    ratios = [t / d for t, d in zip(times["tofe"], times["dense"], strict=True)]
    alone = [(t - f) / d for t, f, d in zip(times["tofe"], times["teacher"], times["dense"], strict=True)]
    memory = [kept_bytes(phase, batch) for phase in (dense, tofe)]
    return {
        "network": name,
        "precision": precision,
        "dense_images_per_s": 64 / statistics.median(times["dense"]),
        "tofe_images_per_s": 64 / statistics.median(times["tofe"]),
        "with_teacher": statistics.median(ratios),
        "with_teacher_spread": [min(ratios), max(ratios)],
        "masked_path": statistics.median(alone),
        "masked_path_spread": [min(alone), max(alone)],
        "kept_bytes": dict(zip(("dense", "tofe"), memory, strict=True)),
        "memory": memory[1] / memory[0],
    }


def processes_beside_one(rounds: int) -> dict[str, Any]:
    """Images a second of two processes with a thread each, and of one with one thread, in turn."""
    found: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(3):
        for size, rates in found.items():
            launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"] if size > 1 else []
            command = [sys.executable, *launch, __file__, "--worker", "--rounds", str(rounds)]
            env = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
            rates.append(float(done.stdout.split()[-1]))
    ratios = [two / one for one, two in zip(found[1], found[2], strict=True)]
    return {
        "images_per_s": {str(size): statistics.median(rates) for size, rates in found.items()},
        "ratio": statistics.median(ratios),
        "ratio_spread": [min(ratios), max(ratios)],
    }


def work(rounds: int) -> None:
    """The dense and the ToFe step in turn; the first process prints images a second of all processes."""
    torch.set_num_threads(1)
    with joined(CPU) as processes:
        recipe = recipe_of("small", "fp32", 64 * processes.size)
        phases = [phase_of(name, recipe, processes) for name in (DENSE, TOFE)]
        batch = batch_for(phases[0])
        seconds = [sum(seconds_of(phase, batch) for phase in phases) for _ in range(rounds + 1)][1:]
        if processes.first:
            print(2 * 64 * processes.size / statistics.median(seconds))


if __name__ == "__main__":
    main()
