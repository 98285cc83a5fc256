"""What is traced: a network's fixed path as a function of images alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

from torch import Tensor, nn

from tofe_export.graph.passes.taps import tap_name
from tofe_export.model.blocks import explicit_attention
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.tofe import ToFe, check_features, check_keep
from tofe_export.runners.base import FEATURES, LOGITS

Network = TypeVar("Network", bound=nn.Module)


class Deployable(nn.Module):
    """The fixed path in evaluation mode, around the weights of a network that it leaves as it is.

    Args:
        model: the network.
        keep, rearrange: see `FixedPath`.
        outputs: logits, features or both.
        taps: return the scores, perm and tokens of every stage that chooses, too.

    Raises:
        InputError: keep counts that do not fit the model, or features of one that discards tokens.
    """

    def __init__(self, model: ToFe, keep: Sequence[int], rearrange: bool, outputs: Sequence[str], taps: bool) -> None:
        super().__init__()
        keep = check_keep(keep, model)
        if FEATURES in outputs:
            check_features(model)
        stages = [index for index, count in enumerate(keep) if count != model.arriving(keep)[index]] if taps else []
        self.names = [*outputs, *(tap_name(index, what) for index in stages for what in ("scores", "perm", "tokens"))]
        """Of what `forward` returns."""
        self.path = FixedPath(keep, rearrange, FEATURES in outputs)
        self.tofe, self.outputs, self.taps = structure_of(model), outputs, taps
        explicit_attention(self.eval())

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images float32 [B, 3, H, W] -> what `names` says, in its order."""
        out = self.tofe.forward_fixed(images, self.path)
        wanted = [out.logits if name == LOGITS else out.features for name in self.outputs]
        stages = out.stages if self.taps else ()
        taps = [value for trace in stages for value in (trace.scores, trace.perm, trace.tokens)]
        return tuple(value for value in (*wanted, *taps) if value is not None)


def structure_of(module: Network) -> Network:
    """A copy of the modules around the same weights."""
    return copy.deepcopy(module, {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())})
