"""tofe-export inspect"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tofe_export.cli import console, hints


def inspect(
    file: Annotated[Path, typer.Argument(help="Checkpoint, ONNX file or engine.", metavar="FILE")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of words.")] = False,
    keep_rate: hints.KeepRate = None,
    selector: hints.Selector = None,
    fuse_token: hints.FuseToken = None,
    stages: hints.Stages = None,
    backbone: hints.Backbone = None,
    backbone_args: hints.BackboneArgs = "",
    img_size: hints.ImageSize = None,
) -> None:
    """Say what a file is: network, stages, keep counts, cost, operators."""
    from tofe_export.workflows.inspect_file import inspect_file

    told = hints.hints_from(backbone, backbone_args, selector, fuse_token, stages, keep_rate, img_size)
    document = inspect_file(file, told)
    if json:
        console.print_json(document)
    console.warn([f"Note: {note}" for note in document.get("notes", [])])
    if json:
        return
    facts = _facts(document)
    title = f"{document['file']}: {document['kind']}, {document['size_bytes'] / 1e6:.1f} MB"
    console.table(title, ("", ""), facts, numbers=False)


def _facts(document: dict[str, Any]) -> list[tuple[str, str]]:
    known = document if document["kind"] == "checkpoint" else (document["manifest"] or {})
    rows: list[tuple[str, str]] = []
    if known:
        config = known["config"]
        rows += [
            ("recognised as", known.get("recognised", "ToFe")),
            ("backbone", config["backbone"]),
        ]
        if known["stages"]:
            stages = ", ".join(f"{start}-{stop - 1}" for start, stop in known["stages"])
            rows += [
                ("selector, approximator", f"{config['selector']}, {config['approximator']}"),
                ("stages (blocks)", stages),
            ]
        rows += [
            ("tokens, prefix", f"{known['tokens']}, {known['prefix']}"),
            ("dense GMACs", f"{known['dense_gmacs']:.3f}"),
        ]
        if "keep" in known:
            counts = ", ".join(map(str, known["keep"])) or "all"
            rows += [("keep counts", counts), ("GMACs", f"{known['gmacs']:.3f}")]
        size = known["preprocessing"]
        rows.append(("input", f"{size['height']} x {size['width']}, mean {size['mean']}, std {size['std']}"))
    if document["kind"] == "checkpoint":
        rows.append(("parameters", f"{document['parameters'] / 1e6:.2f} million"))
        rows += [(f"trained: {key}", str(value)) for key, value in document["metrics"].items()]
        return rows
    if document["kind"] == "engine":
        return rows + _engine_facts(document)
    if known:
        rows += _precision_facts(known)
    else:
        rows.append(("manifest", "none beside the file"))
    rows += [(f"output {name}", shape) for name, shape in document["outputs"].items()]
    rows += [(node["name"], f"{node['operator']}{_attributes(node)}") for node in document["operators"]]
    rows.append(
        ("other nodes", ", ".join(f"{count} {name}" for name, count in document["nodes"].items() if "::" not in name))
    )
    return rows


def _engine_facts(document: dict[str, Any]) -> list[tuple[str, str]]:
    manifest, source = document["manifest"], document["from"]
    built = manifest["backend"]
    layers = [
        (f"layers: {kind}", ", ".join(f"{count} {precision}" for precision, count in counts.items()))
        for kind, counts in document["layers"].items()
    ]
    return [
        ("built by", f"{built['name']} {built['version']} on {built['gpu'] or 'a machine without a GPU'}"),
        *_precision_facts(manifest),
        ("batch sizes (min:opt:max)", document["batch"]),
        *((f"input {name}", f"{kind} {shape}") for name, (kind, shape) in document["inputs"].items()),
        *((f"output {name}", f"{kind} {shape}") for name, (kind, shape) in document["outputs"].items()),
        *((use["operator"], f"{use['nodes']} x {use['by']} ({use['why']})") for use in manifest["operators"]),
        ("plugin layers", ", ".join(document["plugins"]) or "none"),
        ("layers known from", source if source == "engine" else f"the manifest: {document['why']}"),
        *layers,
    ]


def _precision_facts(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """The precision; of a quantized model also what lies around it and how it was calibrated."""
    if "calibration" not in manifest:
        return [("precision", manifest["precision"])]
    recipe = manifest["calibration"]["recipe"]
    images = f"at most {recipe['data']['samples']} images of {recipe['data']['source']}"
    rows = [
        ("precision", f"{manifest['precision']} with {manifest['around']} around"),
        ("calibrated by", f"recipe {recipe['name']}: {images}, {recipe['ranges']['method']}"),
    ]
    layers = manifest.get("layers", {}).get("quantized", {})
    return rows + [("quantized", ", ".join(f"{count} {kind}" for kind, count in layers.items()))] * bool(layers)


def _attributes(node: dict[str, Any]) -> str:
    return "".join(f" {key}={node[key]}" for key in ("keep", "prefix") if key in node)
