"""`tofe-export inspect`: what a file is, in words and as JSON."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from tofe_export.artifacts.files import require_file, sha256
from tofe_export.artifacts.manifest import has_manifest, read_manifest
from tofe_export.artifacts.names import readable
from tofe_export.checkpoints.checkpoint import load
from tofe_export.checkpoints.foreign import Hints
from tofe_export.engine.inspect import layer_histogram
from tofe_export.engine.runtime import load_engine
from tofe_export.errors import InputError, MissingError
from tofe_export.graph.functions import is_operator
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.verify.opened import read_onnx


def inspect_file(path: Path, hints: Hints | None = None) -> dict[str, Any]:
    """Describes a checkpoint, an ONNX file or an engine; `kind` says which it is.

    Args:
        path: the file.
        hints: what a checkpoint of somebody else's does not say.

    Raises:
        InputError: neither, missing, damaged, a manifest that does not belong to it, or hints for what is no
            checkpoint.
    """
    require_file(path)
    kinds = {".onnx": _onnx, ".engine": _engine}
    if path.suffix in kinds and hints not in (None, Hints()):
        raise InputError(
            f"{path} says itself what it is: options about a network are for checkpoints.",
            "Leave --backbone, --backbone-args, --selector, --stages, --fuse-token, --keep-rate and --img-size away.",
        )
    described = kinds[path.suffix](path) if path.suffix in kinds else _checkpoint(path, hints)
    return {
        "schema": "tofe-export/inspect/1",
        "file": readable(path.name),
        "size_bytes": path.stat().st_size,
        "sha256": sha256(path),
        **described,
    }


def _checkpoint(path: Path, hints: Hints | None) -> dict[str, Any]:
    checkpoint = load(path, hints)
    model = checkpoint.model
    described: dict[str, Any] = {
        "kind": "checkpoint",
        "recognised": checkpoint.recognised,
        "notes": list(checkpoint.notes),
        "config": model.config.to_dict(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tokens": model.tokens,
        "prefix": model.prefix,
        "stages": [[blocks.start, blocks.stop] for blocks in model.stage_blocks],
        "keep_ratios": list(checkpoint.keep_ratios),
        "dense_gmacs": dense_macs(model.vit) / 1e9,
        "preprocessing": checkpoint.preprocessing.to_dict(),
        "data": checkpoint.data,
        "metrics": dict(checkpoint.metrics),
    }
    if checkpoint.knows_keep:
        keep = checkpoint.keep_counts()
        described |= {"keep": list(keep), "gmacs": tofe_macs(model, [float(count) for count in keep]) / 1e9}
    return described


def _engine(path: Path) -> dict[str, Any]:
    """From the engine where it can be loaded, else from its manifest, whose hash is checked; `from` says which."""
    manifest = read_manifest(path)
    described: dict[str, Any] = {"kind": "engine", "from": "manifest", "layers": manifest["network"]["layers"]}
    try:
        described |= {"from": "engine", "layers": layer_histogram(load_engine(path).information())}
    except MissingError as error:
        described["why"] = error.message
    counts = described["layers"].values()
    return described | {
        "precisions": dict(sum((Counter(found) for found in counts), Counter[str]())),
        "plugins": manifest["network"]["plugins"],
        "inputs": manifest["network"]["inputs"],
        "outputs": manifest["network"]["outputs"],
        "batch": manifest["options"]["batch"],
        "manifest": manifest,
    }


def _onnx(path: Path) -> dict[str, Any]:
    graph = read_onnx(path).graph
    described: dict[str, Any] = {
        "kind": "onnx",
        "inputs": {value.name: str(value.shape) for value in graph.inputs},
        "outputs": {str(value.name): str(value.shape) for value in graph.outputs},
        "nodes": dict(
            Counter(f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in graph).most_common()
        ),
        "operators": [
            {
                "name": node.name,
                "operator": f"{node.domain}::{node.op_type}",
                **{key: node.attributes.get_int(key) for key in ("keep", "prefix") if key in node.attributes},
            }
            for node in graph
            if is_operator(node)
        ],
        "manifest": None,
    }
    if has_manifest(path):
        described["manifest"] = read_manifest(path)
    return described
