"""tofe-export inspect"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from tofe_export.cli import console, hints

if TYPE_CHECKING:
    from tofe_export.documents.inspection import (
        AnyInspection,
        CheckpointInspection,
        EngineInspection,
        GraphOperator,
        OnnxInspection,
        ProgramInspection,
    )
    from tofe_export.documents.manifest import Manifest

Fact = tuple[str, str]
_MADE_BY = {"executorch": ("executorch",), "litert": ("ai-edge-litert", "litert-torch")}
"""Runtime -> its packages, as versions name them."""


def inspect(
    file: Annotated[Path, Argument(help="Checkpoint (or hf-hub:owner/name), or what was made of it.", metavar="FILE")],
    json: Annotated[Path | None, Option(help="Write the result as JSON.", metavar="FILE")] = None,
    keep_rate: hints.KeepRate = None,
    selector: hints.Selector = None,
    fuse_token: hints.FuseToken = None,
    stages: hints.Stages = None,
    backbone: hints.Backbone = None,
    backbone_args: hints.BackboneArgs = "",
    img_size: hints.ImageSize = None,
    weights: hints.Weights = "auto",
) -> None:
    """Say what a file is: network, stages, keep counts, cost, operators."""
    from tofe_export.api.inspect import inspect as describe
    from tofe_export.artifacts.file_kinds import Kind
    from tofe_export.artifacts.outputs import Output, require_outputs

    given = hints.hints_from(backbone, backbone_args, selector, fuse_token, stages, keep_rate, img_size, weights)
    require_outputs([Output(json, Kind.INSPECTION)], [file])
    inspection = describe(file, **vars(given))
    console.save_json(json, inspection)
    if inspection.kind == "checkpoint":
        console.notes(inspection.notes)
    title = f"{inspection.file}: {inspection.kind}, {inspection.size_bytes / 1e6:.1f} MB"
    console.table(title, ("", ""), facts_of(inspection), numbers=False)
    if inspection.kind == "checkpoint":
        console.assumptions(inspection.assumed)


def facts_of(inspection: AnyInspection) -> list[Fact]:
    """The rows of the table."""
    if inspection.kind == "checkpoint":
        parameters = ("parameters", f"{inspection.parameters / 1e6:.2f} million")
        trained = [(f"trained: {name}", str(value)) for name, value in inspection.metrics.items()]
        return [*_network_facts(inspection), parameters, *trained]
    if inspection.kind == "engine":
        return [*_network_facts(inspection.manifest), *_engine_facts(inspection)]
    if inspection.kind == "program":
        return [*_network_facts(inspection.manifest), *_program_facts(inspection)]
    return _onnx_facts(inspection)


def _network_facts(network: CheckpointInspection | Manifest) -> list[Fact]:
    """What a checkpoint and a manifest both say."""
    facts = [("recognized as", network.recognised), ("backbone", network.config.backbone)]
    if network.hub is not None:
        facts.append(("Hugging Face hub", f"{network.hub.repository} at {network.hub.revision}"))
    if network.stages:
        facts += [
            ("selector, approximator", f"{network.config.selector}, {network.config.approximator}"),
            ("stages (blocks)", ", ".join(f"{start}-{stop - 1}" for start, stop in network.stages)),
        ]
    facts += [("tokens, prefix", f"{network.tokens}, {network.prefix}"), ("dense GMACs", f"{network.dense_gmacs:.3f}")]
    if network.keep is not None:
        counts = ", ".join(map(str, network.keep)) or "all"
        facts += [("keep counts", counts), ("GMACs", f"{network.gmacs:.3f}")]
    size = network.preprocessing
    crop = f"{size.interpolation}, crop {size.crop_pct:g} ({size.crop_mode})"
    return [*facts, ("input", f"{size.height} x {size.width}, {crop}, mean {list(size.mean)}, std {list(size.std)}")]


def _onnx_facts(inspection: OnnxInspection) -> list[Fact]:
    manifest = inspection.manifest
    known, operators = [("manifest", "none beside the file")], {node.operator for node in inspection.operators}
    if manifest is not None:
        known = [*_network_facts(manifest), *_precision_facts(manifest)]
    return [
        *known,
        *((f"output {name}", shape) for name, shape in inspection.outputs.items()),
        *((node.name, f"{node.operator}{_attributes(node)}") for node in inspection.operators),
        ("other nodes", console.counted({name: n for name, n in inspection.nodes.items() if name not in operators})),
    ]


def _engine_facts(inspection: EngineInspection) -> list[Fact]:
    manifest = inspection.manifest
    built = manifest.backend
    return [
        ("built by", f"{built.name} {built.version} on {built.gpu or 'a machine without a GPU'}"),
        *_precision_facts(manifest),
        ("batch sizes (min:opt:max)", inspection.batch),
        *((f"input {name}", f"{kind} {list(shape)}") for name, (kind, shape) in inspection.inputs.items()),
        *((f"output {name}", f"{kind} {list(shape)}") for name, (kind, shape) in inspection.outputs.items()),
        *((use.operator, f"{use.nodes} x {use.by} ({use.why})") for use in manifest.operators),
        ("plugin layers", ", ".join(inspection.plugins) or "none"),
        ("layers known from", "engine" if inspection.why is None else f"the manifest: {inspection.why}"),
        *((f"layers: {kind}", console.counted(precisions)) for kind, precisions in inspection.layers.items()),
    ]


def _program_facts(inspection: ProgramInspection) -> list[Fact]:
    manifest = inspection.manifest
    version = next((manifest.versions[name] for name in _MADE_BY[manifest.runtime] if name in manifest.versions), "")
    return [
        ("runs in", f"{manifest.runtime} {version}".rstrip()),
        *_precision_facts(manifest),
        ("batch", "1"),
        ("returns", ", ".join(manifest.returns)),
    ]


def _precision_facts(manifest: Manifest) -> list[Fact]:
    """The precision; of a quantized model also what lies around it and how it was calibrated."""
    if manifest.calibration is None:
        return [("precision", manifest.precision)]
    recipe = manifest.calibration.recipe
    images = f"at most {recipe.data.samples} images of {recipe.data.source}"
    facts = [
        ("precision", f"{manifest.precision} with {manifest.around} around"),
        ("calibrated by", f"recipe {recipe.name}: {images}, {recipe.ranges.method}"),
    ]
    if manifest.layers is not None and manifest.layers.quantized:
        facts.append(("quantized", console.counted(manifest.layers.quantized)))
    return facts


def _attributes(node: GraphOperator) -> str:
    values = {"keep": node.keep, "prefix": node.prefix}
    return "".join(f" {name}={value}" for name, value in values.items() if value is not None)
