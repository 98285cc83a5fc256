"""What INT8 and FP8 cost and gain: the demo's digits, and DeiT-S in ONNX Runtime on the CPU.

    python benchmarks/quantization.py [--demo demo] [--json benchmarks/results/quantization.json] [--rounds 5]

`--demo` is the folder that `make demo` made. DeiT-S has random weights, 224 pixels, keep counts 96,49,27; it is
calibrated on crops of the bundled photographs and compared on 128 others. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from onnx_cpu import BACKBONE, KEEP, RESULTS, make_checkpoint

from tofe_export.api.bench import bench
from tofe_export.api.export import export
from tofe_export.api.quantize import quantize
from tofe_export.api.sensitivity import sensitivity
from tofe_export.documents.machine import describe_machine, describe_versions
from tofe_export.documents.recipe import METHODS
from tofe_export.errors import InputError
from tofe_export.files.writing import write_json

RECIPE = '[data]\nsource = "photos"\nsamples = {samples}\nseed = 1\n[ranges]\nmethod = "{method}"\n'
MEASURED = ("agreement", "speed", "verdict", "layers")


def digits(folder: Path, checkpoint: Path, rounds: int) -> dict[str, Any]:
    """The demo's model with the recipe that fits it, on every held-out digit."""
    model = export(checkpoint, folder / "digits.onnx")
    results = {}
    for precision in ("int8", "fp8"):
        options = {"precision": precision, "samples": 100_000, "rounds": rounds}
        document = quantize(model, folder / f"digits.{precision}.onnx", **options).quantization.to_dict()
        results[precision] = {key: document[key] for key in (*MEASURED, "recipe")}
    return results


def deit(folder: Path, rounds: int) -> dict[str, Any]:
    """Each method's agreement, the default's speed beside float32 and beside the dense backbone, the sensitivity."""
    make_checkpoint(folder / "deit.pth")
    model = export(folder / "deit.pth", folder / "deit.onnx")
    cache = folder / "ranges.npz"
    methods = {}
    for method in METHODS:
        recipe = recipe_of(folder, method)
        quantized = quantize(model, folder / f"deit.{method}.onnx", recipe=recipe, cache=cache, rounds=1)
        methods[method] = quantized.quantization.quantized.to_dict()
    options = {"recipe": recipe_of(folder, "percentile"), "cache": cache}
    int8 = quantize(model, folder / "deit.int8.onnx", rounds=rounds, **options)
    fp8 = quantize(model, folder / "deit.fp8.onnx", precision="fp8", rounds=1, **options)
    document = int8.quantization.to_dict()
    return {
        "methods": methods,
        "int8": {key: document[key] for key in MEASURED},
        "fp8": fp8.quantization.quantized.to_dict(),
        "beside_dense": bench([model, int8], batches=(1, 8), rounds=rounds).to_dict()["rows"],
        "sensitivity": sensitivity(model, samples=64, **options).to_dict()["kinds"],
        "size_bytes": {artifact.path.stem: artifact.path.stat().st_size for artifact in (model, int8)},
        "command": {str(samples): command(folder, model.path, samples) for samples in (32, 512)},
    }


def recipe_of(folder: Path, method: str, samples: int = 128) -> Path:
    recipe = folder / f"{method}-{samples}.toml"
    recipe.write_text(RECIPE.format(method=method, samples=samples))
    return recipe


def command(folder: Path, model: Path, samples: int) -> dict[str, float]:
    """Peak memory of the whole command, in a process of its own, with `samples` calibration images."""
    recipe, cache = recipe_of(folder, "percentile", samples), folder / f"ranges-{samples}.npz"
    words = ["quantize", model, "--recipe", recipe, "--cache", cache, "-o", folder / "x.onnx"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tofe_export", *map(str, words), "--samples", "8", "--rounds", "1"]
    )
    _, _, usage = os.wait4(process.pid, 0)
    return {"peak_gib": usage.ru_maxrss / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("demo"))
    parser.add_argument("--json", type=Path, default=RESULTS / "quantization.json")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    checkpoint = options.demo / "ckpt.pth"
    if not checkpoint.is_file():
        raise SystemExit(str(InputError(f"{checkpoint} does not exist.", "First type: make demo")))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        document = {
            "schema": "tofe-export/benchmark/1",
            "command": f"python benchmarks/quantization.py --rounds {options.rounds}",
            "machine": describe_machine().to_dict(),
            "versions": describe_versions(),
            "settings": {"backbone": BACKBONE, "keep": list(KEEP), "weights": "random", "rounds": options.rounds},
            "digits": digits(folder, checkpoint, options.rounds),
            "deit": deit(folder, options.rounds),
        }
    write_json(options.json, document)


if __name__ == "__main__":
    main()
