"""What INT8 and FP8 cost and gain: the demo's digits, and DeiT-S in ONNX Runtime on the CPU.

    python benchmarks/quantization.py [--demo demo] [--json benchmarks/results/quantization.json] [--rounds 40]

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

from tofe_export.artifacts.files import write_json
from tofe_export.artifacts.machine import describe_machine, describe_versions
from tofe_export.errors import InputError
from tofe_export.precision.histogram import METHODS
from tofe_export.workflows.bench_models import bench_models
from tofe_export.workflows.calibrate_model import CalibrationOptions
from tofe_export.workflows.export_onnx import OnnxOptions, export_onnx
from tofe_export.workflows.precision_forms import Timing
from tofe_export.workflows.quantize_model import QuantizeOptions, quantize_model
from tofe_export.workflows.sensitivity import rank_kinds

RECIPE = '[data]\nsource = "photos"\nsamples = {samples}\nseed = 1\n[ranges]\nmethod = "{method}"\n'
MEASURED = ("agreement", "speed", "verdict", "layers")


def digits(folder: Path, checkpoint: Path, rounds: int) -> dict[str, Any]:
    """The demo's model with the recipe that fits it, on every held-out digit."""
    model = folder / "digits.onnx"
    export_onnx(checkpoint, model, OnnxOptions())
    found = {}
    for precision in ("int8", "fp8"):
        options = QuantizeOptions(precision, CalibrationOptions(), 100_000, Timing(rounds=rounds))
        document = quantize_model(model, folder / f"digits.{precision}.onnx", options).document
        found[precision] = {key: document[key] for key in (*MEASURED, "recipe")}
    return found


def deit(folder: Path, rounds: int) -> dict[str, Any]:
    """Each method's agreement, the default's speed beside float32 and beside the dense backbone, the sensitivity."""
    make_checkpoint(folder / "deit.pth")
    model = folder / "deit.onnx"
    export_onnx(folder / "deit.pth", model, OnnxOptions())
    cache = folder / "ranges.npz"
    methods = {}
    for method in METHODS:
        calibration = calibrate_by(folder, method, cache)
        options = QuantizeOptions("int8", calibration, 128, Timing(rounds=1))
        document = quantize_model(model, folder / f"deit.{method}.onnx", options).document
        methods[method] = document["agreement"][-1]
    calibration = calibrate_by(folder, "percentile", cache)
    options = QuantizeOptions("int8", calibration, 128, Timing(rounds=rounds))
    int8 = quantize_model(model, folder / "deit.int8.onnx", options).document
    fp8 = quantize_model(
        model, folder / "deit.fp8.onnx", QuantizeOptions("fp8", calibration, 128, Timing(rounds=1))
    ).document
    _, ranking, _ = rank_kinds(model, QuantizeOptions("int8", calibration, 64))
    return {
        "methods": methods,
        "int8": {key: int8[key] for key in MEASURED},
        "fp8": fp8["agreement"][-1],
        "beside_dense": bench_models([model, folder / "deit.int8.onnx"], (1, 8), rounds)["rows"],
        "sensitivity": ranking["kinds"],
        "size_bytes": {name: (folder / f"{name}.onnx").stat().st_size for name in ("deit", "deit.int8")},
        "command": {str(samples): command(folder, model, samples) for samples in (32, 512)},
    }


def calibrate_by(folder: Path, method: str, cache: Path, samples: int = 128) -> CalibrationOptions:
    recipe = folder / f"{method}-{samples}.toml"
    recipe.write_text(RECIPE.format(method=method, samples=samples))
    return CalibrationOptions(str(recipe), cache=cache)


def command(folder: Path, model: Path, samples: int) -> dict[str, float]:
    """Peak memory of the whole command, in a process of its own, with so many calibration images."""
    calibration = calibrate_by(folder, "percentile", folder / f"ranges-{samples}.npz", samples)
    words = ["quantize", model, "--recipe", calibration.recipe, "--cache", calibration.cache, "-o", folder / "x.onnx"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tofe_export", *map(str, words), "--samples", "8", "--rounds", "1"]
    )
    _, _, usage = os.wait4(process.pid, 0)
    return {"peak_gib": usage.ru_maxrss / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("demo"))
    parser.add_argument("--json", type=Path, default=RESULTS / "quantization.json")
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    checkpoint = options.demo / "ckpt.pth"
    if not checkpoint.is_file():
        raise SystemExit(str(InputError(f"{checkpoint} does not exist.", "First type: make demo")))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        document = {
            "schema": "tofe-export/benchmark/1",
            "command": f"python benchmarks/quantization.py --rounds {options.rounds}",
            "machine": describe_machine(),
            "versions": describe_versions(),
            "settings": {"backbone": BACKBONE, "keep": list(KEEP), "weights": "random", "rounds": options.rounds},
            "digits": digits(folder, checkpoint, options.rounds),
            "deit": deit(folder, options.rounds),
        }
    write_json(options.json, document)


if __name__ == "__main__":
    main()
