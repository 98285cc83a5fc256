"""ToFe beside DynamicViT, EViT, IdleViT-like and ToMe-like networks at equal cost, each in its best form per runtime.

    python benchmarks/peers.py [--json benchmarks/results/peers.json] [--backbones deit_small_patch16_224]
        [--batches 1,8] [--forms optimized] [--rounds 2] [--processes 5] [--threads 2]

Random weights, 224 pixels. Everything is timed together, in hot blocks in fresh processes. The reference is what a user
has today: the dense backbone as plain `torch.onnx.export` writes it, in ONNX Runtime, in float32.

* forms: ONNX Runtime portable, optimized and INT8; OpenVINO float32 and INT8, and both with BF16 around where the
  processor computes in it;
* DynamicViT and EViT keep half of the tokens at each stage. The IdleViT-like network leaves the others as they are and
  may take them up again; it selects by one linear layer, where IdleViT takes the attention of the CLS token. The
  ToMe-like one merges r similar tokens in each block. ToFe, IdleViT and ToMe are set to the cost of DynamicViT;
* "ToFe, full tiles" has counts at the right ends of the steps of this machine's staircase (`tune`), at no higher cost.

Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import onnx_ir as ir
from merging import TokenMerging, merged_macs
from methods import DISCARDING, PAPER
from methods import network as build
from plain_export import export_plain

from tofe_export.checkpoints.keep_rates import counts_of_rate, counts_of_ratios
from tofe_export.documents.machine import describe_machine, describe_versions
from tofe_export.documents.recipe import QuantizePolicy
from tofe_export.files.writing import write_json
from tofe_export.graph.export import export_dense, export_tofe
from tofe_export.graph.stored import copy_model
from tofe_export.graph.targets import rewrite_for
from tofe_export.model.backbones import image_shape
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.model.tofe import ToFe
from tofe_export.precision.calibration import read_by
from tofe_export.precision.quantize import quantize_graph
from tofe_export.progress import silent
from tofe_export.runners.openvino_runner import has_bf16
from tofe_export.timing.dense import Place, write_model
from tofe_export.timing.intervals import speedup
from tofe_export.timing.processes import Measured, time_in_processes
from tofe_export.timing.subjects import AnyModel, OnnxFile, OpenVinoFile
from tofe_export.tuning.staircase import measure_staircase

RESULTS = Path(__file__).parent / "results"
IDLEVIT: dict[str, str] = {"selector": "linear", "approximator": "identity"}


@dataclass(frozen=True)
class Network:
    """A network to time: its name, its share of the dense cost, and its graph in float32, made when it is wanted."""

    name: str
    share: float
    graph: Callable[[], ir.Model]
    keep: tuple[int, ...] = ()


@dataclass(frozen=True)
class Timed:
    """A network in a form."""

    network: Network
    form: str
    file: AnyModel


def share_of(model: ToFe, keep: tuple[int, ...]) -> float:
    return tofe_macs(model, [float(count) for count in keep]) / dense_macs(model.vit)


def at_cost(name: str, model: ToFe, target: float) -> Network:
    """The largest keep counts, in the paper's proportions, that cost at most `target` of dense."""
    counts = [counts_of_ratios([min(1.0, step / 400 * r) for r in PAPER], model.tokens) for step in range(1, 800)]
    return of_counts(name, model, [keep for keep in counts if share_of(model, keep) <= target][-1])


def of_counts(name: str, model: ToFe, keep: tuple[int, ...]) -> Network:
    return Network(name, share_of(model, keep), lambda: export_tofe(model, keep, False, False), keep)


def full_tiles(model: ToFe, near: tuple[int, ...], threads: int) -> Network:
    """The counts nearest to `near` that fill tiles and cost no more."""
    steps = measure_staircase(int(model.vit.embed_dim), model.tokens, model.prefix, 1, "onnxruntime", threads, silent)
    good = [step.count for step in steps if step.efficient]
    choices = [sorted(good, key=lambda count: abs(count - wanted))[:4] for wanted in near]
    target = share_of(model, near)
    fitting = [keep for keep in product(*choices) if share_of(model, keep) <= target]
    return of_counts("ToFe, full tiles", model, max(fitting, key=lambda keep: share_of(model, keep)))


def merging(backbone: str, target: float) -> Network:
    """As few tokens merged in each block as come to the cost."""
    model = build(backbone)
    dense = dense_macs(model.vit)
    merged = next(r for r in range(1, model.tokens) if merged_macs(model.vit, r) <= target * dense)
    network = TokenMerging(build(backbone).vit, merged)
    share = merged_macs(model.vit, merged) / dense
    return Network(f"ToMe-like, r {merged}", share, lambda: export_plain(network, model.vit))


def networks(backbone: str, threads: int) -> list[Network]:
    """The dense backbone first."""
    tofe, dynamic = build(backbone), build(backbone, **DISCARDING["DynamicViT 0.5"])
    peer = of_counts("DynamicViT 0.5", dynamic, counts_of_rate(dynamic, 0.5))
    own = at_cost("ToFe", tofe, peer.share)
    found = [Network("dense", 1.0, lambda: export_dense(tofe)), own, full_tiles(tofe, own.keep, threads), peer]
    if not backbone.startswith("lvvit"):  # whose head reads every token, and whose attention has no CLS row of its own
        evit = build(backbone, **DISCARDING["EViT 0.5"])
        found.append(of_counts("EViT 0.5", evit, counts_of_rate(evit, 0.5)))
        found.append(at_cost("IdleViT-like", build(backbone, **IDLEVIT), peer.share))
        found.append(merging(backbone, peer.share))
    return found


def forms(network: Network, place: Place) -> list[Timed]:
    """Every form of one network, written to files."""
    graph = network.graph()
    policy = QuantizePolicy()
    eight = quantize_graph(copy_model(graph), dict.fromkeys(read_by(graph), 1.0), policy, "int8").model

    def timed(form: str, model: ir.Model, kind: type[OnnxFile] | type[OpenVinoFile], **settings: Any) -> Timed:
        path = place.file(".onnx")
        write_model(model, path)
        return Timed(network, form, kind(path=path, threads=place.threads, **settings))

    optimized, inlined, eight_inlined = copy_model(graph), copy_model(graph), copy_model(eight)
    rewrite_for(optimized, "onnxruntime")
    rewrite_for(inlined, "openvino")
    rewrite_for(eight_inlined, "openvino")
    found = [
        timed("ONNX Runtime, portable", graph, OnnxFile),
        timed("ONNX Runtime, optimized", optimized, OnnxFile),
        timed("ONNX Runtime, INT8", eight, OnnxFile, precision="int8"),
        timed("OpenVINO, float32", inlined, OpenVinoFile),
        timed("OpenVINO, INT8", eight_inlined, OpenVinoFile, precision="int8"),
    ]
    if has_bf16():
        found.append(timed("OpenVINO, BF16", inlined, OpenVinoFile, precision="bf16", arithmetic="bf16"))
        found.append(timed("OpenVINO, INT8 and BF16", eight_inlined, OpenVinoFile, precision="int8", arithmetic="bf16"))
    return found


def measure(backbone: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), options.threads, silent)
        every = networks(backbone, options.threads)
        vit = build(backbone).vit
        plain = Network("dense", 1.0, lambda: export_plain(vit, vit))
        path = place.file(".onnx")
        write_model(plain.graph(), path)
        timed = [Timed(plain, "ONNX Runtime, plain torch.onnx.export", OnnxFile(path=path, threads=options.threads))]
        for network in every:
            timed += [one for one in forms(network, place) if options.forms in one.form]
        measured = time_in_processes(
            [one.file for one in timed], image_shape(vit), options.batches, options.rounds, options.processes
        )
        return [row(timed, place, batch, measured) for batch in options.batches for place in range(len(timed))]


def row(timed: list[Timed], place: int, batch: int, measured: Measured) -> dict[str, Any]:
    """One network in one form, against the plain dense file and against the dense backbone in its own form."""
    one, own = timed[place], measured.of(place, batch)
    dense = next((p for p, other in enumerate(timed) if other.form == one.form and other.network.share == 1.0), place)
    plain, same = speedup(measured.of(0, batch), own), speedup(measured.of(dense, batch), own)
    return {
        "network": one.network.name,
        "keep": list(one.network.keep),
        "share_of_dense": one.network.share,
        "form": one.form,
        "batch": batch,
        "p50_ms": sorted(timings.percentile_ms(50) for timings in own)[len(own) // 2],
        "over_plain": plain.value,
        "over_plain_interval": [plain.low, plain.high],
        "over_dense_in_this_form": same.value,
        "over_dense_interval": [same.low, same.high],
        "realised_fraction": same.value * one.network.share,
    }


def show(rows: list[dict[str, Any]]) -> None:
    for one in rows:
        low, high = one["over_plain_interval"]
        print(
            f"{one['network']:18s} {one['form']:38s} batch {one['batch']:2d}  {one['p50_ms']:8.2f} ms  "
            f"{one['over_plain']:.2f} ({low or 0:.2f} to {high or 0:.2f})  "
            f"{one['over_dense_in_this_form']:.2f}  realised {one['realised_fraction']:.3f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=RESULTS / "peers.json")
    parser.add_argument("--backbones", default="deit_small_patch16_224,lvvit_s")
    parser.add_argument("--batches", default="1,8", type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--forms", default="", help="only those with this text in their name")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    groups = {}
    for backbone in options.backbones.split(","):
        groups[backbone] = measure(backbone, options)
        show(groups[backbone])
    document = {
        "schema": "tofe-export/benchmark/1",
        "command": f"python benchmarks/peers.py --backbones {options.backbones} --batches "
        f"{','.join(map(str, options.batches))} --forms '{options.forms}' --rounds {options.rounds} "
        f"--processes {options.processes} --threads {options.threads}",
        "machine": describe_machine().to_dict(),
        "versions": describe_versions(),
        "weights": "random",
        "groups": groups,
    }
    write_json(options.json, document)


if __name__ == "__main__":
    main()
