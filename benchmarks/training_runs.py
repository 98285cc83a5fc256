"""Whole runs of a recipe on real images: accuracy against the dense backbone's, cost against the budget, and the time.

    python benchmarks/training_runs.py --data clothing10 --recipe small --json benchmarks/results/training_small.json

Each seed is written as soon as its run has ended; seeds that the file holds already are not run again. With `--runs`
the runs stay in that folder, and one that was stopped goes on there. With that option torchrun may start it, too:

    torchrun --nproc-per-node 2 benchmarks/training_runs.py --runs runs ...

`step_seconds` counts the steps alone, over all parts of a run; `seconds` counts everything, and is null of a
run that was resumed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from tofe_export.api.train import train
from tofe_export.documents.history import read_history, read_pace
from tofe_export.documents.machine import describe_machine, describe_versions
from tofe_export.files.names import METRICS, STATE, STEPS
from tofe_export.files.writing import write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--budget", type=float, default=0.5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", help="of the products; the recipe's where it is omitted")
    parser.add_argument("--runs", type=Path, help="folder that keeps the runs; a temporary one where it is omitted")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1 and options.runs is None:
        parser.error("several processes need --runs, a folder that they share")
    document: dict[str, Any] = json.loads(options.json.read_text()) if options.json.exists() else {"rows": []}
    for seed in map(int, options.seeds.split(",")):
        if any((row["seed"], row["budget"]) == (seed, options.budget) for row in document["rows"]):
            continue
        document["rows"].append(run(options, seed))
        document |= {
            "schema": "tofe-export/benchmark/1",
            "command": (f"torchrun --nproc-per-node {processes}" if processes > 1 else "python")
            + f" benchmarks/training_runs.py --data DATA --recipe {options.recipe} "
            f"--seeds {options.seeds} --budget {options.budget}"
            + (f" --precision {options.precision}" if options.precision else ""),
            "settings": {
                "processes": processes,
                "data": Path(options.data).name,
                "recipe": options.recipe,
                "precision": options.precision,
            },
        }
        if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun started, one writes
            write_json(options.json, document)
            print(json.dumps(document["rows"][-1]), flush=True)


def run(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    with contextlib.ExitStack() as leaving:
        folder = options.runs and options.runs / f"seed-{seed}-budget-{options.budget}"
        folder = folder or Path(leaving.enter_context(tempfile.TemporaryDirectory()))
        resumed, begun = (folder / STATE).exists(), time.perf_counter()
        done = train(
            options.data,
            folder,
            recipe=options.recipe,
            changes={"run.precision": options.precision} if options.precision else {},
            seed=seed,
            budget=options.budget,
            device=options.device,
            resume=options.runs is not None,
        )
        lasted = time.perf_counter() - begun
        history, pace = read_history(folder / METRICS), read_pace(folder / STEPS)
    return {
        "seed": seed,
        "budget": options.budget,
        "dense_accuracy": done.dense_accuracy,
        "accuracy": done.evaluation.val_accuracy,
        "macs_ratio": done.evaluation.macs_ratio,
        "keep_mean": done.evaluation.keep_mean,
        "keep_std": done.evaluation.keep_std,
        "epochs": len(history.epochs),
        "step_seconds": sum(stretch.seconds or 0 for stretch in pace.stretches),
        "seconds": None if resumed else lasted,
        "machine": describe_machine().to_dict(),
        "versions": describe_versions(),
    }


if __name__ == "__main__":
    main()
