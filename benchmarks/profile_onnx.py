"""Where the time of an exported ToFe model goes, operator by operator, beside its dense backbone.

    python benchmarks/profile_onnx.py model.onnx [--batch 1] [--rounds 30] [--json FILE]

Both run in turn in one process under ONNX Runtime's profiler (2 threads by default). Times are medians over the
runs; the profiler itself adds a few microseconds to every node, so compare shares rather than totals.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from tofe_export.artifacts.manifests import read_manifest
from tofe_export.documents.machine import describe_machine, describe_versions
from tofe_export.files.writing import write_json
from tofe_export.graph.export import export_dense
from tofe_export.model.config import ToFeConfig
from tofe_export.model.tofe import build_tofe

PARTS = (
    ("selector", re.compile(r"stages\.\d+\.selector")),
    ("approximator", re.compile(r"stages\.\d+\.approximator")),
    ("blocks", re.compile(r"vit\.blocks\.\d+")),
    ("last block, prefix rows", re.compile(r"stages\.\d+/(?!Slice$)")),
    ("embedding and head", re.compile(r"vit\.|images/")),
)


FUSED = ("BiasGelu", "Transpose", "Squeeze", "SkipLayerNormalization")


def part_of(node: str, operator: str) -> str:
    """Nodes that the runtime fused lose their module; those of inlined function bodies never had one."""
    unnamed = "renamed by the runtime" if operator in FUSED else "partition and rearrange"
    return next((name for name, pattern in PARTS if pattern.match(node)), unnamed)


def profile(sessions: dict[str, ort.InferenceSession], images: np.ndarray, rounds: int) -> dict[str, dict[str, float]]:
    for session in sessions.values():
        session.run(None, {"images": images})
    for _ in range(rounds):
        for session in sessions.values():
            session.run(None, {"images": images})
    return {name: read_trace(Path(session.end_profiling())) for name, session in sessions.items()}


def read_trace(path: Path) -> dict[str, dict[str, float]]:
    durations: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for event in json.loads(path.read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            node = event["name"].removesuffix("_kernel_time")
            durations[node, event["args"]["op_name"], int(event["args"]["node_index"])].append(event["dur"])
    found: dict[str, dict[str, float]] = {"operators_ms": defaultdict(float), "parts_ms": defaultdict(float)}
    for (node, operator, _), times in durations.items():
        found["operators_ms"][operator] += float(np.median(times)) / 1e3
        found["parts_ms"][part_of(node, operator)] += float(np.median(times)) / 1e3
    ordered = {key: dict(sorted(value.items(), key=lambda item: -item[1])) for key, value in found.items()}
    return {**ordered, "nodes": len(durations), "total_ms": sum(ordered["parts_ms"].values())}


def open_session(model: bytes, threads: int, folder: str, name: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.enable_profiling = True
    options.profile_file_prefix = str(Path(folder) / name)
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    manifest = read_manifest(options.model)
    twin = build_tofe(ToFeConfig.from_dict(manifest.config.to_dict())).eval()
    dense = ir.to_proto(export_dense(twin)).SerializeToString()
    shape = (options.batch, *manifest.image_shape)
    images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        sessions = {
            "dense": open_session(dense, options.threads, folder, "dense"),
            "tofe": open_session(options.model.read_bytes(), options.threads, folder, "tofe"),
        }
        found = profile(sessions, images, options.rounds)
    for key in ("parts_ms", "operators_ms"):
        print(f"{key:32s} {'dense':>9s} {'tofe':>9s}")
        for name in sorted({*found["dense"][key], *found["tofe"][key]}, key=lambda n: -found["tofe"][key].get(n, 0)):
            print(f"  {name:30s} {found['dense'][key].get(name, 0):9.3f} {found['tofe'][key].get(name, 0):9.3f}")
    print(f"{'total_ms':32s} {found['dense']['total_ms']:9.3f} {found['tofe']['total_ms']:9.3f}")
    print(f"{'nodes':32s} {found['dense']['nodes']:9d} {found['tofe']['nodes']:9d}")
    if options.json:
        command = (
            f"python benchmarks/profile_onnx.py {options.model.name} --batch {options.batch} --rounds {options.rounds}"
        )
        write_json(
            options.json,
            {
                "schema": "tofe-export/profile/1",
                "command": command,
                "machine": describe_machine().to_dict(),
                "versions": describe_versions(),
                "keep": list(manifest.keep),
                "gmacs": {"dense": manifest.dense_gmacs, "tofe": manifest.gmacs},
                **found,
            },
        )


if __name__ == "__main__":
    main()
