"""A Triton Inference Server under load, beside the file itself in a loop; and what preparing images costs.

    make triton && apt-get install wrk
    python benchmarks/serving.py --json benchmarks/results/serving.json

The server runs a DeiT-S with random weights that takes pixels (`package --for triton --python`), one instance with all
processors. wrk sends images of the input's size over loopback from one thread of its own, on the same processors. The
file itself runs batches of eight in ONNX Runtime in a process of its own. Both take turns; the server's figures are
those of wrk.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import tofe_export as tofe
from tests.packages.triton_server import Server, binaries, serving
from tofe_export.checkpoints.checkpoint import Checkpoint, save
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.documents.machine import describe_machine, describe_versions, processors
from tofe_export.files.writing import write_json
from tofe_export.model.config import ToFeConfig
from tofe_export.model.tofe import build_tofe
from tofe_export.packages.triton import TritonSettings
from tofe_export.runners.onnxruntime_runner import import_onnxruntime

BATCH = 8
CLIENTS = (8, 64)
SIZES = ((375, 500), (480, 640), (1080, 1920), (3000, 4000))
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="deit_small_patch16_224")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=15, help="of a round")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = served(folder, options.backbone)
        repository = folder / "repository"
        settings = TritonSettings(batch=BATCH, delay_us=2000, threads=processors())
        tofe.package(model, repository, name="tofe", python=True, settings=settings)
        with serving(binaries(folder), repository) as server:
            rows = loaded(server, folder, model, options)
        document = {
            "schema": "tofe-export/benchmark/1",
            "command": f"python benchmarks/serving.py --backbone {options.backbone} --rounds {options.rounds} "
            f"--seconds {options.seconds}",
            "settings": {"batch": BATCH, "delay_us": settings.delay_us, "threads": settings.threads, "instances": 1},
            "rows": rows,
            "preparing": prepared(),
            "machine": describe_machine().to_dict(),
            "versions": describe_versions(),
        }
    write_json(options.json, document)
    print(json.dumps(rows, indent=1))


def served(folder: Path, backbone: str) -> Path:
    network = build_tofe(ToFeConfig(backbone, {}))
    checkpoint = Checkpoint(
        network.eval(), (0.49, 0.25, 0.14), Preprocessing.of_backbone(network.vit), {}, "photos", ()
    )
    save(folder / "ckpt.pth", checkpoint)
    tofe.export(folder / "ckpt.pth", folder / "model.onnx", input="image", outputs="classes")
    return folder / "model.onnx"


def loaded(server: Server, folder: Path, model: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rounds of the file and of the server with each number of clients, in turn."""
    pixels = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    script = request(folder, pixels)
    alone: list[float] = []
    found: dict[int, list[dict[str, float]]] = {clients: [] for clients in CLIENTS}
    for clients in CLIENTS:  # warm
        wrk(server, script, clients, 5)
    for _ in range(options.rounds):
        alone.append(in_a_loop(model, options.seconds))
        for clients in CLIENTS:
            found[clients].append(wrk(server, script, clients, options.seconds))
    file = statistics.median(alone)
    rows: list[dict[str, Any]] = [{"what": "the file in a loop", "batch": BATCH, "images_per_s": file, "rounds": alone}]
    for clients, rounds in found.items():
        ratios = [one["images_per_s"] / own for one, own in zip(rounds, alone, strict=True)]
        rows.append(
            {
                "what": "Triton, Python backend",
                "clients": clients,
                **{key: statistics.median(one[key] for one in rounds) for key in ("images_per_s", "p50_ms", "p99_ms")},
                "errors": sum(one["errors"] for one in rounds),
                "of_the_file": statistics.median(ratios),
                "of_the_file_range": [min(ratios), max(ratios)],
            }
        )
    return rows


def request(folder: Path, pixels: np.ndarray[Any, Any]) -> Path:
    """A script of wrk that posts one image, as bytes behind the JSON (Triton's binary extension of V2)."""
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": list(pixels.shape)}
    tensor["parameters"] = {"binary_data_size": pixels.nbytes}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    (folder / "body").write_bytes(head + pixels.tobytes())
    script = folder / "post.lua"
    script.write_text(
        f'local file = io.open("{folder / "body"}", "rb")\n'
        'wrk.method = "POST"\nwrk.body = file:read("*all")\n'
        f'wrk.headers["Inference-Header-Content-Length"] = "{len(head)}"\n'
        'wrk.headers["Content-Type"] = "application/octet-stream"\n'
    )
    return script


def wrk(server: Server, script: Path, clients: int, seconds: int) -> dict[str, float]:
    """Requests of `clients` connections for some seconds."""
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--latency", "--timeout", "60s", "-s", str(script)]
    said = subprocess.run(
        [*command, f"{server.http}/v2/models/tofe/infer"], capture_output=True, text=True, check=True
    ).stdout
    latency = {
        share: float(number) * _UNITS[unit]
        for share, number, unit in re.findall(r"(\d+)% +([\d.]+)(us|ms|s|m)\b", said)
    }
    _until_idle(server)
    errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    return {
        "images_per_s": float(re.search(r"Requests/sec: +([\d.]+)", said)[1]),  # type: ignore[index]
        "p50_ms": latency["50"],
        "p99_ms": latency["99"],
        "errors": (sum(map(int, errors.groups())) if errors else 0) + (int(refused[1]) if refused else 0),
    }


def _until_idle(server: Server) -> None:
    """wrk leaves when its time is over; what it still waited for is computed nevertheless."""
    before = -1
    while (now := _answered(server)) != before:
        before = now
        time.sleep(2)


def _answered(server: Server) -> int:
    with urllib.request.urlopen(f"{server.http}/v2/models/tofe/stats") as answer:
        count: int = json.load(answer)["model_stats"][0]["inference_count"]
        return count


def in_a_loop(model: Path, seconds: int) -> float:
    """Images a second of the file in a process of its own."""
    code = (
        "import sys, time, numpy, onnxruntime\n"
        "o = onnxruntime.SessionOptions(); o.intra_op_num_threads = int(sys.argv[2])\n"
        "s = onnxruntime.InferenceSession(sys.argv[1], o)\n"
        "x = numpy.random.default_rng(0).integers(0, 256, (int(sys.argv[3]), 224, 224, 3), dtype=numpy.uint8)\n"
        "for _ in range(3): s.run(None, {'pixels': x})\n"
        "begun = time.perf_counter(); runs = 0\n"
        "while time.perf_counter() - begun < float(sys.argv[4]): s.run(None, {'pixels': x}); runs += 1\n"
        "print(runs * len(x) / (time.perf_counter() - begun))\n"
    )
    arguments = [str(model), str(processors()), str(BATCH), str(seconds)]
    return float(subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, check=True).stdout)


def prepared() -> list[dict[str, Any]]:
    """Pillow and timm beside the graph, for one image, on one thread; whether they agree."""
    from tests.graph.test_preparing import preparing  # noqa: PLC0415 - a model that does nothing else
    from tofe_export.graph.stored import serialize  # noqa: PLC0415

    preprocessing = Preprocessing(224, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", 0.9)
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(serialize(preparing(preprocessing)), options)
    rows = []
    for height, width in SIZES:
        noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        image = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        pixels = np.array(image)[None]
        times: dict[str, list[float]] = {"pillow": [], "graph": []}
        for _ in range(7):
            begun = time.perf_counter()
            wanted = preprocessing(image)
            middle = time.perf_counter()
            [negative] = session.run(None, {"pixels": pixels})
            times["pillow"].append(middle - begun)
            times["graph"].append(time.perf_counter() - middle)
        rows.append(
            {
                "size": [height, width],
                "pillow_ms": 1e3 * statistics.median(times["pillow"][1:]),
                "graph_ms": 1e3 * statistics.median(times["graph"][1:]),
                "equal": bool(np.array_equal(-negative[0], wanted.numpy())),
            }
        )
    return rows


if __name__ == "__main__":
    main()
