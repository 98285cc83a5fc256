"""Which tokens the fixed path keeps, and how it hands them on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor


@dataclass(frozen=True)
class FixedPath:
    """Inference with a constant number of tokens in each stage.

    Attributes:
        keep: keep count of each stage; see `check_keep`.
        rearranged: tokens are put back in spatial order after each stage; otherwise elided, which is exact.
        features: the patch tokens are returned too, in spatial order.
        selection: stage -> perm int [B, n] to use instead of the selector's own; empty lets every stage choose.
    """

    keep: tuple[int, ...]
    rearranged: bool = True
    features: bool = False
    selection: Mapping[int, Tensor] = field(default_factory=dict)

    def forced(self, selection: Mapping[int, Tensor]) -> FixedPath:
        """The same path on given selections."""
        return replace(self, selection=selection)
