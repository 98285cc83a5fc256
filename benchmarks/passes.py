"""What each pass of `optimize --for onnxruntime` gains, alone and together, on ToFe at half the cost and dense DeiT-S.

    python benchmarks/passes.py [--json benchmarks/results/passes.json] [--batches 1,8] [--rounds 2] [--processes 5]
        [--threads 2]

Random weights, 224 pixels, ONNX Runtime on the CPU. Everything is timed together, in hot blocks in fresh processes. A
gain is over the portable file of the same network; `over_dense` is over the dense backbone with the same passes.
Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
from methods import network, share, tofe_at

from tofe_export.documents.machine import describe_machine, describe_versions
from tofe_export.files.writing import write_json
from tofe_export.graph.export import export_dense, export_tofe
from tofe_export.graph.passes.attention import fuse_attention
from tofe_export.graph.passes.ties import trust_ties
from tofe_export.graph.stored import copy_model
from tofe_export.model.backbones import image_shape
from tofe_export.precision.weights import WEIGHTS_PASS, weights_in_8_bits
from tofe_export.progress import silent
from tofe_export.timing.dense import Place, write_model
from tofe_export.timing.intervals import Ratio, speedup
from tofe_export.timing.processes import Measured, time_in_processes
from tofe_export.timing.subjects import OnnxFile

RESULTS = Path(__file__).parent / "results"
BACKBONE = "deit_small_patch16_224"
PASSES: dict[str, Callable[[ir.Model], int]] = {"attention": fuse_attention, "ties": trust_ties}
TRIED = ((), ("attention",), ("ties",), ("attention", "ties"), ("attention", "ties", WEIGHTS_PASS))


@dataclass(frozen=True)
class Form:
    """A network with some passes applied: how many places they changed, and the file to time."""

    network: str
    passes: tuple[str, ...]
    places: dict[str, int]
    file: OnnxFile


def forms(name: str, graph: ir.Model, place: Place) -> list[Form]:
    found = []
    for passes in TRIED:
        rewritten = copy_model(graph)
        places = {one: PASSES[one](rewritten) for one in passes if one in PASSES}
        if WEIGHTS_PASS in passes:
            rewritten, places[WEIGHTS_PASS] = weights_in_8_bits(rewritten)
        if 0 in places.values() and WEIGHTS_PASS not in passes:
            continue  # the dense backbone has no ties to trust
        path = place.file(".onnx")
        write_model(rewritten, path)
        found.append(Form(name, passes, places, OnnxFile(path=path, threads=place.threads)))
    return found


def row(timed: list[Form], index: int, batch: int, measured: Measured) -> dict[str, Any]:
    form, own = timed[index], measured.of(index, batch)
    portable = next(i for i, other in enumerate(timed) if other.network == form.network and not other.passes)
    in_dense = tuple(one for one in form.passes if one != "ties")
    dense = next(
        i for i, other in enumerate(timed) if other.network == "dense" and other.passes in (in_dense, form.passes)
    )
    return {
        "network": form.network,
        "passes": form.places,
        "batch": batch,
        "p50_ms": sorted(timings.percentile_ms(50) for timings in own)[len(own) // 2],
        "gain": described(speedup(measured.of(portable, batch), own)),
        "over_dense": described(speedup(measured.of(dense, batch), own)),
    }


def described(ratio: Ratio) -> dict[str, Any]:
    return {"value": ratio.value, "low": ratio.low, "high": ratio.high}


def show(one: dict[str, Any]) -> None:
    gain, over, passes = one["gain"], one["over_dense"], " + ".join(one["passes"]) or "portable"
    print(
        f"{one['network']:6s} batch {one['batch']}  {passes:30s} {one['p50_ms']:8.2f} ms  "
        f"gain {gain['value']:.3f} ({gain['low'] or 0:.3f} to {gain['high'] or 0:.3f})  over dense {over['value']:.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=RESULTS / "passes.json")
    parser.add_argument("--batches", default="1,8", type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    model = network(BACKBONE)
    half = tofe_at("ToFe", model, 0.5)
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), options.threads, silent)
        timed = forms("dense", export_dense(model), place)
        timed += forms("ToFe", export_tofe(model, half.keep, False, False), place)
        files = [form.file for form in timed]
        shape = image_shape(model.vit)
        measured = time_in_processes(files, shape, options.batches, options.rounds, options.processes)
    rows = [row(timed, index, batch, measured) for batch in options.batches for index in range(len(timed))]
    for one in rows:
        show(one)
    document = {
        "schema": "tofe-export/benchmark/1",
        "command": f"python benchmarks/passes.py --batches {','.join(map(str, options.batches))} "
        f"--rounds {options.rounds} --processes {options.processes} --threads {options.threads}",
        "machine": describe_machine().to_dict(),
        "versions": describe_versions(),
        "weights": "random",
        "keep": list(half.keep),
        "share_of_dense": share(half),
        "rows": rows,
    }
    write_json(options.json, document)


if __name__ == "__main__":
    main()
