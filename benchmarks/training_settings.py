"""What settings of the ToFe phase do, measured on training photographs that are left out of the training.

    python benchmarks/training_settings.py --data clothing10 --runs build/settings --set tofe.quiet_share=0.3 \
        --json benchmarks/results/training_settings.json

A hash of its name leaves one photograph in five out; the held-out photographs choose nothing. The dense backbone is
trained once and kept in `--runs`; each call sets one ToFe phase beside the others, all from that backbone. The
divergence of the two networks' answers, KL(dense || ToFe), is less noisy than accuracy.

Torchrun may start it: torchrun --nproc-per-node 2 benchmarks/training_settings.py ...
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch

from tofe_export.api.train import train
from tofe_export.checkpoints import checkpoint
from tofe_export.cli.parse import recipe_changes
from tofe_export.data.images import batches
from tofe_export.data.sources import open_source
from tofe_export.documents.machine import describe_machine, describe_versions
from tofe_export.files.names import CHECKPOINT, METRICS
from tofe_export.files.writing import atomic_path, write_json
from tofe_export.model.selector import threshold_choice
from tofe_export.training import losses
from tofe_export.training.phase import frozen_copy
from tofe_export.training.state import load_state

_LEFT_OUT = 5  # one photograph in five
_OF_TRAINING = ("classification", "distillation", "approximation", "spread")
_OF_RESULT = ("keep_mean", "keep_std", "macs_ratio")  # with the thresholds that were set at the end


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--recipe", default="small")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the ToFe phase")
    parser.add_argument("--epochs", type=int, default=8, help="of the ToFe phase")
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    split = split_of(options.data / "train", options.runs / "images")
    dense = dense_backbone(options, split)
    changes = {**recipe_changes(options.set), "tofe.epochs": options.epochs, "dense.epochs": 0}
    name = ",".join(options.set).replace("/", "-") or "recipe"
    folder = options.runs / f"{name}-{options.epochs}"
    train(split, folder, recipe=options.recipe, changes=changes, init=dense, device="cpu", resume=True)
    if os.environ.get("RANK", "0") != "0":
        return
    last = json.loads((folder / METRICS).read_text().splitlines()[-1])
    row = {"changes": changes, **measured(folder / CHECKPOINT, dense, split), **{k: last[k] for k in _OF_TRAINING}}
    print(json.dumps(row))
    if options.json:
        new = {"schema": "tofe-export/benchmark/1", "command": "python benchmarks/training_settings.py ...", "rows": []}
        document = json.loads(options.json.read_text()) if options.json.exists() else new
        document["rows"].append({**row, "machine": describe_machine().to_dict(), "versions": describe_versions()})
        write_json(options.json, document)


def split_of(source: Path, folder: Path) -> Path:
    """Links to the photographs of `source`, below train/ and val/."""
    for path in sorted(source.glob("*/*")):
        name = f"{path.parent.name}/{path.name}"
        left_out = int(hashlib.sha1(name.encode()).hexdigest(), 16) % _LEFT_OUT == 0
        link = folder / ("val" if left_out else "train") / name
        link.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):  # another process was faster
            link.symlink_to(path.resolve())
    return folder


def dense_backbone(options: argparse.Namespace, split: Path) -> Path:
    """The file of its weights: the teacher of a run whose ToFe phase is as short as can be."""
    path = options.runs / "dense.pth"
    if not path.exists():
        train(split, options.runs / "dense", recipe=options.recipe, epochs=1, device="cpu", resume=True)
        state = load_state(options.runs / "dense")
        assert state is not None
        with atomic_path(path) as draft:  # each of several processes needs it now, so each writes it
            torch.save(dict(state.teacher), draft)
    return path


@torch.no_grad()
def measured(path: Path, dense: Path, split: Path) -> dict[str, Any]:
    """Of the photographs that were left out."""
    loaded = checkpoint.load(path)
    model = loaded.model.eval()
    teacher = frozen_copy(model.vit)
    teacher.load_state_dict(torch.load(dense, weights_only=True))
    found: dict[str, list[torch.Tensor]] = {"ours": [], "theirs": [], "labels": []}
    for batch in batches(open_source(str(split), "val"), loaded.preprocessing, 64):
        assert batch.labels is not None
        found["ours"].append(model.forward_masked(batch.images, threshold_choice).logits)
        found["theirs"].append(teacher(batch.images))
        found["labels"].append(batch.labels)
    ours, theirs, labels = (torch.cat(parts) for parts in found.values())
    return {
        "dense_accuracy": float((theirs.argmax(1) == labels).float().mean()),
        "accuracy": float((ours.argmax(1) == labels).float().mean()),
        "cross_entropy": float(losses.classification_loss(ours, labels)),
        "divergence_from_teacher": float(losses.distillation_loss(ours, theirs)),
        "agreement_with_teacher": float((ours.argmax(1) == theirs.argmax(1)).float().mean()),
        **{key: loaded.metrics[key] for key in _OF_RESULT},
    }


if __name__ == "__main__":
    main()
