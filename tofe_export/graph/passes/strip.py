"""Removes what the exporter wrote for its own debugging: stack traces (with paths of this machine), FX node
names, documentation strings. Afterwards the file depends only on the checkpoint and the options."""

from __future__ import annotations

import onnx_ir as ir

from tofe_export import __version__


def strip_metadata(model: ir.Model) -> bool:
    """Strips the model in place and names this program as its producer."""
    model.metadata_props.clear()
    model.doc_string = None
    model.producer_name, model.producer_version = "tofe-export", __version__
    graph = model.graph
    graph.name = "tofe"
    graph.metadata_props.clear()
    graph.doc_string = None
    for value in (*graph.inputs, *graph.initializers.values()):
        value.metadata_props.clear()
    for node in graph:
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    return True
