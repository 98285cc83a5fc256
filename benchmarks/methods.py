"""ToFe beside DynamicViT and EViT at equal cost, on DeiT-S and LV-ViT-S, in ONNX Runtime on the CPU.

    python benchmarks/methods.py [--json benchmarks/results/methods.json] [--rounds 5] [--threads 2]

Random weights, 224 pixels. Every method is exported by `tofe-export onnx` and timed in turn with the dense backbone
that it shares with the others, batch 1 and 8. ToFe's keep ratios stand to each other as the paper's (.49 : .25 : .14),
scaled until the network costs as much as the method beside it, or half of the dense backbone. The row `one token kept`
is what is left when nothing more can be saved: what it takes is the price of streaming the weights and of the first
quarter of the blocks. `pair` times LV-ViT-S at half the cost alone with its dense backbone, as a deployment runs it.
Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tofe_export.api.bench import bench
from tofe_export.api.export import export
from tofe_export.checkpoints.checkpoint import Checkpoint, save
from tofe_export.checkpoints.keep_rates import counts_of_rate, counts_of_ratios
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.documents.machine import describe_machine, describe_versions
from tofe_export.files.writing import write_json
from tofe_export.model.config import ToFeConfig
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.model.tofe import ToFe, build_tofe

RESULTS = Path(__file__).parent / "results"
PAPER = (0.49, 0.25, 0.14)
DISCARDING = {
    "DynamicViT 0.5": {"selector": "mlp", "approximator": "discard"},
    "EViT 0.5": {"selector": "cls-attention", "approximator": "fuse"},
}
BACKBONES = {"deit_small_patch16_224": list(DISCARDING), "lvvit_s": ["DynamicViT 0.5"]}
PAIR = "lvvit_s"


@dataclass(frozen=True)
class Entry:
    """A network and its keep counts, under the name of a file."""

    name: str
    model: ToFe
    keep: tuple[int, ...]


def network(backbone: str, **parts: str) -> ToFe:
    torch.manual_seed(0)
    return build_tofe(replace(ToFeConfig(backbone), **parts)).eval()


def share(entry: Entry) -> float:
    return tofe_macs(entry.model, [float(count) for count in entry.keep]) / dense_macs(entry.model.vit)


def tofe_at(name: str, model: ToFe, target: float) -> Entry:
    """ToFe with the largest keep counts, in the paper's proportions, that cost at most `target` of dense."""
    scales = [step / 400 for step in range(1, 800)]
    entries = [
        Entry(name, model, counts_of_ratios([min(1.0, scale * r) for r in PAPER], model.tokens)) for scale in scales
    ]
    return [entry for entry in entries if share(entry) <= target][-1]


def entries_for(backbone: str) -> list[Entry]:
    tofe = network(backbone)
    found = []
    for method in BACKBONES[backbone]:
        model = network(backbone, **DISCARDING[method])
        other = Entry(method, model, counts_of_rate(model, 0.5))
        found += [other, tofe_at(f"ToFe at the cost of {method}", tofe, share(other))]
    stages = len(tofe.stages)
    return [*found, tofe_at("ToFe at half the cost", tofe, 0.5), Entry("ToFe, one token kept", tofe, (1,) * stages)]


def measure(entries: list[Entry], folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    paths = []
    for entry in entries:
        checkpoint = folder / "checkpoint.pth"
        save(checkpoint, Checkpoint(entry.model, (), Preprocessing.of_backbone(entry.model.vit)))
        # Random scores lie close together, so parity is looked at on few images (benchmarks/onnx_cpu.py has more).
        path = folder / f"{entry.name}.onnx"
        paths.append(export(checkpoint, path, keep=entry.keep, rearrange="elide").path)
    measured = bench(paths, batches=(1, 8), rounds=options.rounds, threads=options.threads).to_dict()
    rows = [{**row, "name": row["name"].removesuffix(".onnx")} for row in measured["rows"]]
    shares = {entry.name: {"keep": list(entry.keep), "share_of_dense": share(entry)} for entry in entries}
    return {"networks": shares, "settings": measured["settings"], "rows": rows}


def show(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        print(
            f"{row['name']:40s} batch {row['batch']}  {row['p50_ms']:8.2f} ms  {row['gmacs']:.3f} GMACs  "
            f"{row['speedup']:.2f} ({row['speedup_low']:.2f} to {row['speedup_high']:.2f})  "
            f"realised {row['realised_fraction']:.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=RESULTS / "methods.json")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    found = {}
    for backbone in BACKBONES:
        with tempfile.TemporaryDirectory() as name:
            found[backbone] = measure(entries_for(backbone), Path(name), options)
        show(found[backbone]["rows"])
    with tempfile.TemporaryDirectory() as name:
        half = tofe_at("ToFe at half the cost", network(PAIR), 0.5)
        found["pair"] = measure([half], Path(name), options)
    show(found["pair"]["rows"])
    document = {
        "schema": "tofe-export/benchmark/1",
        "command": f"python benchmarks/methods.py --rounds {options.rounds} --threads {options.threads}",
        "machine": describe_machine().to_dict(),
        "versions": describe_versions(),
        "weights": "random",
        "form": "elide",
        "groups": found,
    }
    write_json(options.json, document)


if __name__ == "__main__":
    main()
