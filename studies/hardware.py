"""Do saved MACs become saved time? The networks of seed 0 in runtimes: accuracy beside measured latency."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tofe_export
from studies.work import Place
from tofe_export.checkpoints import checkpoint
from tofe_export.documents.machine import describe_machine, describe_versions

ARMS = (
    *(f"{kind}-{budget}" for kind in ("bottleneck", "discard", "evit") for budget in (70, 50, 35)),
    *("identity-50", "block-50", "linear-50"),
)
FORMS = ("onnxruntime", "openvino", "int8")


def measure(place: Place, batches: Sequence[int], rounds: int, threads: int) -> dict[str, Any]:
    """Exports what there is of `ARMS`, and measures it beside the dense network each was made of.

    The fixed counts are the means of what the network keeps. Accuracy is over all held-out images; `share` is of the
    dense network's MACs. Run it on an otherwise idle machine.

    Returns:
        A JSON document with a row an arm, form and batch size.
    """
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for arm in ARMS:
            source = place.work / "checkpoints" / f"{place.images}-{arm}-0.pth"
            if not source.exists():
                continue
            files = _files(source, folder / arm, place.data)
            right = {form: _accuracy(path, source, place.data) for form, path in files.items()}
            timed = tofe_export.bench(
                list(files.values()), batches=batches, rounds=rounds, processes=3, threads=threads
            )
            forms = {path.name: form for form, path in files.items()}
            share = checkpoint.load(source).metrics["macs_ratio"]
            for row in timed.rows:
                if row.name in forms:
                    form = forms[row.name]
                    rows.append({"arm": arm, "form": form, "accuracy": right[form], "share": share, **row.to_dict()})
    return {
        "schema": "tofe-export/benchmark/1",
        "command": f"python -m studies hardware --data {place.images}=DATA",
        "machine": describe_machine().to_dict(),
        "versions": describe_versions(),
        "settings": {"set": place.images, "seed": 0, "rounds": rounds, "threads": threads, "form": "elide"},
        "rows": rows,
    }


def _files(source: Path, folder: Path, data: str) -> dict[str, Path]:
    folder.mkdir()
    plain = tofe_export.export(source, folder / "onnxruntime.onnx", rearrange="elide").path
    vino = tofe_export.optimize(plain, folder / "openvino.onnx", target="openvino").path
    eight = tofe_export.quantize(plain, folder / "int8.onnx", data=data, batches=1, rounds=1, processes=1).path
    return dict(zip(FORMS, (plain, vino, eight), strict=True))


def _accuracy(path: Path, source: Path, data: str) -> float:
    verified = tofe_export.verify(path, against=source, data=data, samples=1_000_000, threshold=False).artifacts[0]
    assert verified.accuracy is not None  # the held-out images have labels
    return verified.accuracy.deployed
