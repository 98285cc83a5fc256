"""The demo as a user runs it: wall time after installation, accuracy, cost, how kept counts differ, and a picture.

python benchmarks/demo.py [--json benchmarks/results/demo.json] [--picture docs/images/token_map.png]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tofe_export.checkpoints.checkpoint import load
from tofe_export.data.images import batches
from tofe_export.data.sources import open_source
from tofe_export.documents.machine import describe_machine, describe_versions
from tofe_export.files.reading import read_json
from tofe_export.files.writing import write_json
from tofe_export.page.drawing import write_png
from tofe_export.page.gallery import token_map_figure
from tofe_export.page.token_maps import token_maps


def draw(path: Path, keep: list[int], picture: Path) -> None:
    """Token maps of four held-out images, the README's picture."""
    checkpoint, source = load(path), open_source("digits", "val")
    images = batches(source, checkpoint.preprocessing, 4, limit=4)
    write_png(token_map_figure(token_maps(checkpoint, tuple(keep), images), source.classes, columns=2), picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "demo.json")
    parser.add_argument("--picture", type=Path, default=Path(__file__).parents[1] / "docs" / "images" / "token_map.png")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "demo"
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "tofe_export", "demo", "--out", str(out)], check=True)
        seconds = time.perf_counter() - start
        manifest = read_json(out / "model.onnx.json")
        verified, timed = read_json(out / "verify.json"), read_json(out / "bench.json")
        draw(out / "ckpt.pth", manifest["keep"], options.picture)
        last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    document = {
        "schema": "tofe-export/benchmark/1",
        "command": "python benchmarks/demo.py",
        "machine": describe_machine().to_dict(),
        "versions": describe_versions(),
        "seconds": seconds,
        "held_out_accuracy": verified["accuracy"],
        "held_out_accuracy_threshold_path": last["val_accuracy"],
        "keep": manifest["keep"],
        "tokens": manifest["tokens"],
        "macs_ratio": manifest["gmacs"] / manifest["dense_gmacs"],
        "kept_ratio_per_stage": {"mean": last["keep_mean"], "std_over_images": last["keep_std"]},
        "top1_agreement": verified["top1_agreement"],
        "logits": verified["logits"],
        "rows": timed["rows"],
    }
    write_json(options.json, document)
    print(json.dumps({key: value for key, value in document.items() if key != "rows"}, indent=1))


if __name__ == "__main__":
    main()
