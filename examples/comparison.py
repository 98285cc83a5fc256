"""Dense, ToFe, and freezing without estimates, for one task: trained alike, exported with features, measured alike.

All three continue the same dense network for the same number of steps. `tofe` estimates what the blocks would have
done to a frozen token; `identity` leaves it as it was, so that the head reads the token at the depth where it was
frozen. Every figure is taken twice: from PyTorch's fixed path, and from the exported file in ONNX Runtime.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import tofe_export as tofe
from examples.freezing import BATCH, RECIPE, SETTINGS, Learner, Task, kept_shares, network, train_dense, train_frozen
from examples.scenes import Scene, Scenes, as_input
from tofe_export.checkpoints.checkpoint import Checkpoint, save
from tofe_export.checkpoints.keep_rates import counts_of_ratios
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.documents.machine import describe_machine, describe_versions
from tofe_export.files.writing import write_json
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.flops import dense_macs, tofe_macs

METHODS = {"dense": "bottleneck", "tofe": "bottleneck", "identity": "identity"}


def options_of(description: str | None, arguments: list[str] | None, default: Path) -> argparse.Namespace:
    """The options that both examples take."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder with one subfolder of images per class; without it digits are pasted")
    parser.add_argument("--init", type=Path, help="folder of another run, whose dense networks this one starts from")
    parser.add_argument("-o", "--output", type=Path, default=default, help="folder of checkpoints, heads and models")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--epochs", type=int, default=6, help="two thirds train the dense network, one third continues")
    parser.add_argument("--steps", type=int, default=120, help=f"per epoch, each with {BATCH} new scenes")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--held-out", type=int, default=400, help="scenes that figures are measured on")
    parser.add_argument("--keep", nargs="+", type=float, help="share of the tokens per stage; default: as learned")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--depth", type=int, default=8)
    return parser.parse_args(arguments)


def compare(task: Task, options: argparse.Namespace, module: str) -> list[dict[str, Any]]:
    """Trains, exports and measures each method with each seed; prints a table, and writes --json."""
    rows = [row for seed in range(options.seeds) for row in _one_seed(task, options, seed)]
    _show(task, rows)
    if options.json is not None:
        document = {
            "schema": "tofe-export/benchmark/1",
            "command": f"python -m {module} {_typed(options)}",
            "machine": describe_machine().to_dict(),
            "versions": describe_versions(),
            "threads": torch.get_num_threads(),
            "task": task.name,
            "metric": task.metric,
            "pasted": "digits" if options.data is None else Path(options.data).name,
            "budget": SETTINGS.budget,
            "rows": rows,
        }
        write_json(options.json, document)
    return rows


def _typed(options: argparse.Namespace) -> str:
    """The options that figures depend on; where images lie is not one."""
    given = {name: value for name, value in vars(options).items() if value and name not in ("json", "output")}
    texts = {name: " ".join(map(str, value)) if isinstance(value, list) else value for name, value in given.items()}
    texts |= {"data": "DATA"} if options.data else {}
    return " ".join(f"--{name.replace('_', '-')} {text}" for name, text in texts.items())


def _one_seed(task: Task, options: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    # Each phase draws scenes of its own; those that figures come from are the same for every seed.
    first, second = (Scenes("train", options.data, 2 * seed + phase) for phase in (1, 2))
    held_out = Scenes("val", options.data)
    further = max(1, options.epochs // 3) * options.steps
    print(f"seed {seed}, dense", flush=True)
    torch.manual_seed(seed)
    head = task.head(options.width, len(first.classes))
    dense = Learner(network(task.sizes[0], options.width, options.depth, "bottleneck", seed), head, task)
    if options.init is not None:
        dense.model.vit.load_state_dict(tofe.load(options.init / f"dense-{seed}").model.vit.state_dict())
    train_dense(dense, first, max(1, options.epochs * options.steps - further), RECIPE.dense.lr)
    rows = []
    for method in options.methods:
        print(f"seed {seed}, {method} continues", flush=True)
        model = network(task.sizes[0], options.width, options.depth, METHODS[method], seed)
        model.vit.load_state_dict(dense.model.vit.state_dict())
        learner = Learner(model, copy.deepcopy(dense.head), task)
        torch.manual_seed(seed)
        if method == "dense":
            train_dense(learner, second, further, SETTINGS.lr * SETTINGS.backbone_lr_scale)
            shares: tuple[float, ...] = (1.0,) * len(model.stages)
        else:
            train_frozen(learner, second, further, SETTINGS.budget)
            shares = tuple(options.keep or ()) or kept_shares(model, second, task.sizes[0], 8 * BATCH)
        folder = options.output / f"{method}-{seed}"
        write(learner, shares, folder)
        rows += [
            {"method": method, "seed": seed, **measure(learner.head, task, folder, size, held_out, options.held_out)}
            for size in task.sizes
        ]
    return rows


def write(learner: Learner, shares: tuple[float, ...], folder: Path) -> None:
    """The network as a checkpoint of this program, the head as a state dict beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    size = learner.task.sizes[0]
    preprocessing = Preprocessing(size, size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    save(folder / "ckpt.pth", Checkpoint(learner.model, shares, preprocessing))
    torch.save(learner.head.state_dict(), folder / "head.pth")


@torch.no_grad()
def measure(head: nn.Module, task: Task, folder: Path, size: int, held_out: Scenes, count: int) -> dict[str, Any]:
    """Exports the checkpoint in `folder` for images of `size`, and scores the head on PyTorch's and ONNX's features."""
    checkpoint = tofe.load(folder / "ckpt.pth", image_size=size)
    model, keep = checkpoint.model, counts_of_ratios(checkpoint.keep_ratios, checkpoint.model.tokens)
    artifact = tofe.export(checkpoint, folder / f"features-{size}.onnx", outputs="features")
    path, runner = FixedPath(keep, rearranged=False, features=True), artifact.open()
    scenes: list[Scene] = held_out.many(range(count), size)
    found: dict[str, list[Tensor]] = {"pytorch": [], "onnx": []}
    for start in range(0, count, BATCH):
        images = as_input(scenes[start : start + BATCH])
        features = model.forward_fixed(images, path).features
        assert features is not None
        found["pytorch"].append(features)
        found["onnx"].append(torch.from_numpy(np.asarray(runner.run(images.numpy())["features"])))
    features = {name: torch.cat(parts) for name, parts in found.items()}
    score = {name: task.score(head(rows), scenes, len(held_out.classes)) for name, rows in features.items()}
    # A near-tie may select another token in ONNX Runtime, so the share of equal features is given, not the maximum.
    same = (features["pytorch"] - features["onnx"]).abs().amax(dim=2) < 1e-3
    return {
        "size": size,
        "keep": list(keep),
        "macs_share": float(tofe_macs(model, [float(kept) for kept in keep]) / dense_macs(model.vit)),
        **score,
        "equal_features": float(same.float().mean()),
    }


def _show(task: Task, rows: list[dict[str, Any]]) -> None:
    print(f"{'method':10s} {'pixels':>6s} {'MACs':>6s}  {task.metric} in PyTorch, per seed; mean; mean in ONNX Runtime")
    for size in task.sizes:
        for method in dict.fromkeys(row["method"] for row in rows):
            those = [row for row in rows if row["method"] == method and row["size"] == size]
            scores = " ".join(f"{row['pytorch']:.3f}" for row in those)
            share, mean, onnx = (np.mean([row[name] for row in those]) for name in ("macs_share", "pytorch", "onnx"))
            print(f"{method:10s} {size:6d} {share:6.1%}  {scores}; {mean:.3f}; {onnx:.3f}")
