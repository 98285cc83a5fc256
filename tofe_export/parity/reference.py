"""What a deployed model is compared with: PyTorch, or the ONNX file that it was made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from tofe_export.artifacts.artifact import Artifact
from tofe_export.documents.manifest import NetworkConfig
from tofe_export.graph.functions import is_operator
from tofe_export.graph.passes.taps import show_taps, tap_name, tapped_stages
from tofe_export.graph.stored import copy_model, serialize
from tofe_export.model.config import ToFeConfig
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.operators import PARTITION
from tofe_export.model.outputs import SparseOutput, StageTrace
from tofe_export.model.selection import Layout
from tofe_export.model.selector import CLS_ATTENTION
from tofe_export.model.tofe import ToFe
from tofe_export.runners.base import FEATURES, LOGITS
from tofe_export.runners.onnxruntime_runner import OnnxRuntimeRunner

_FORCED, _GIVEN, _SCORES_INPUT = "forced", "given", 1


class Reference(ABC):
    """A model that can be told which tokens to keep.

    Attributes:
        name: in sentences.
        path: the fixed path it takes.
        prefix: rows before the patch tokens.
        layout: how tokens lie between stages.
        score_scale: scores below it count as being of this size when near-ties are judged.
    """

    def __init__(
        self, name: str, path: FixedPath, tokens: int, prefix: int, network: ToFeConfig | NetworkConfig
    ) -> None:
        self.name, self.path, self.prefix = name, path, prefix
        self.layout = Layout.of(network.approximator, tokens, path.rearranged)
        # Attention weights are far below 1 and add up to it; scores from logits are of any size.
        self.score_scale = 0.0 if network.selector == CLS_ATTENTION else 1.0

    @abstractmethod
    def run(self, images: Tensor, selection: Mapping[int, Tensor], features: bool) -> SparseOutput:
        """On float32 [B, D, H, W]; `selection` is a perm for each stage, or empty for the model's own."""


class TorchReference(Reference):
    """A network in PyTorch."""

    def __init__(self, model: ToFe, path: FixedPath) -> None:
        super().__init__("PyTorch", path, model.tokens, model.prefix, model.config)
        self.model = model

    def run(self, images: Tensor, selection: Mapping[int, Tensor], features: bool) -> SparseOutput:
        """See `Reference.run`."""
        return self.model.forward_fixed(images, replace(self.path, selection=selection, features=features))


class OnnxReference(Reference):
    """An ONNX file in ONNX Runtime; where it is forced, a constant order stands in for the scores of a stage.

    Raises:
        InputError: not an ONNX file.
    """

    def __init__(self, artifact: Artifact) -> None:
        manifest, model = artifact.manifest, copy_model(artifact.graph)
        name = "float32" if manifest.precision == "fp32" else manifest.precision.upper()
        path = FixedPath(manifest.keep, manifest.rearrange == "plugin")
        super().__init__(name, path, manifest.tokens, manifest.prefix, manifest.config)
        show_taps(model)
        self._stages = tapped_stages(model)
        self._widths = _make_forcible(model)
        self._runner = OnnxRuntimeRunner(serialize(model))
        self._last: tuple[Tensor, SparseOutput] | None = None

    def run(self, images: Tensor, selection: Mapping[int, Tensor], features: bool) -> SparseOutput:
        """See `Reference.run`. Several models are compared on one batch, so its own selection is run once."""
        if not selection and self._last is not None and self._last[0] is images:
            return _with(self._last[1], features)
        given = {_FORCED: np.array(bool(selection))} if self._widths else {}
        for stage, width in self._widths.items():
            order = np.zeros((len(images), width), np.float32)
            if selection:  # higher scores come first
                ranks = -np.arange(width, dtype=np.float32)[None].repeat(len(images), axis=0)
                np.put_along_axis(order, selection[stage].numpy().astype(np.int64), ranks, axis=1)
            given[f"{tap_name(stage, 'scores')}.{_GIVEN}"] = order
        values = {k: torch.from_numpy(v) for k, v in self._runner.run(images.numpy(), given).items()}
        traces = [
            StageTrace(stage, *(values[tap_name(stage, tap)] for tap in ("scores", "perm", "tokens")))
            for stage in self._stages
        ]
        logits = values.get(LOGITS, torch.zeros(len(images), 0))
        output = SparseOutput(logits, traces, values.get(FEATURES))
        if not selection:
            self._last = images, output
        return _with(output, features)


def _with(output: SparseOutput, features: bool) -> SparseOutput:
    return output if features else replace(output, features=None)


def _make_forcible(model: ir.Model) -> dict[int, int]:
    """Lets each partition read given scores instead of its own where the input `forced` says so.

    Returns:
        Stage -> tokens that it ranks.
    """
    graph, widths = model.graph, {}
    forced = ir.Value(name=_FORCED, shape=ir.Shape([]), type=ir.TensorType(ir.DataType.BOOL))
    perms = {tap_name(stage, "perm"): stage for stage in tapped_stages(model)}
    for node in [node for node in graph if is_operator(node) and node.op_type == PARTITION]:
        scores, stage = node.inputs[_SCORES_INPUT], perms[str(node.outputs[2].name)]
        assert scores is not None
        assert scores.shape is not None
        name = f"{tap_name(stage, 'scores')}.{_GIVEN}"
        given = ir.Value(name=name, shape=scores.shape, type=ir.TensorType(ir.DataType.FLOAT))
        choice = ir.node("Where", [forced, given, scores], name=f"{name}/Where")
        choice.outputs[0].name = f"{name}.chosen"
        choice.outputs[0].type, choice.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), scores.shape
        graph.insert_before(node, choice)
        node.replace_input_with(_SCORES_INPUT, choice.outputs[0])
        graph.inputs.append(given)
        widths[stage] = int(scores.shape[1])  # type: ignore[arg-type]
    if widths:
        graph.inputs.append(forced)
    return widths
