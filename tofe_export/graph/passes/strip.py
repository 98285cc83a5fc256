"""Removes the exporter's own debugging data: stack traces (with paths of this machine), FX node
names, documentation strings. Afterwards the file depends only on the checkpoint and the options."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

from tofe_export import __version__


def strip_metadata(model: ir.Model) -> bool:
    """Strips the model in place and names this program as its producer."""
    ClearMetadataAndDocStringPass()(model)
    model.metadata_props.clear()
    model.doc_string = None
    model.producer_name, model.producer_version = "tofe-export", __version__
    graph = model.graph
    graph.name = "tofe"
    computed = (value for node in graph for value in node.outputs)
    for value in (*graph.inputs, *graph.initializers.values(), *computed):
        value.metadata_props.clear()
    return True
