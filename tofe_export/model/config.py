"""What a ToFe network is made of, apart from its weights. Plain data: it travels inside the checkpoint."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tofe_export.documents.fields import plain
from tofe_export.documents.manifest import NetworkConfig
from tofe_export.errors import InputError, nearest
from tofe_export.model.approximator import APPROXIMATORS, DISCARD, FUSE
from tofe_export.model.selector import CLS_ATTENTION, NO_SELECTOR, SELECTORS

STAGES = 3


@dataclass(frozen=True)
class ToFeConfig:
    """Configuration of a ToFe network.

    Attributes:
        backbone: timm model name.
        backbone_args: keyword arguments of `timm.create_model`; numbers, strings and booleans only.
        stage_starts: first block of each stage, ascending; empty means quarters of the depth, or no stages with the
            selector `none`.
        selector: one of `SELECTORS`.
        approximator: one of `APPROXIMATORS`.
        dense_output: the last stage's frozen tokens come back too, for heads that read every token.

    Raises:
        InputError: a name that is none of them, or two that do not go together.
    """

    backbone: str
    backbone_args: Mapping[str, Any] = field(default_factory=dict)
    stage_starts: tuple[int, ...] = ()
    selector: str = "mlp"
    approximator: str = "bottleneck"
    dense_output: bool = False

    def __post_init__(self) -> None:
        for part, name, known in (
            ("selector", self.selector, SELECTORS),
            ("approximator", self.approximator, APPROXIMATORS),
        ):
            if name not in known:
                raise InputError(
                    f"There is no token {part} {name!r}.",
                    f"Use {nearest(name, known)}.",
                    code=f"unknown-{part}",
                    name=name,
                )
        gone = self.approximator in (DISCARD, FUSE)
        if self.approximator == FUSE and self.selector != CLS_ATTENTION:
            raise InputError(
                f"Tokens are fused by their attention, which the selector {self.selector!r} does not give.",
                f'Use `selector="{CLS_ATTENTION}"`, or another approximator.',
                code="fuse-without-attention",
                selector=self.selector,
            )
        if self.selector == CLS_ATTENTION and not gone:
            raise InputError(
                f"The selector {CLS_ATTENTION} works only with the approximators {DISCARD} and {FUSE}.",
                "Use one of them.",
                code="approximator-of-cls-attention",
                approximator=self.approximator,
            )
        if self.dense_output and gone:
            raise InputError(
                f"With the approximator {self.approximator!r} frozen tokens never come back, so there are no features "
                "of every token.",
                "Use bottleneck, identity or block.",
                code="no-features",
                approximator=self.approximator,
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, for JSON and for `torch.load(weights_only=True)`."""
        return {**asdict(self), "backbone_args": dict(self.backbone_args), "stage_starts": list(self.stage_starts)}

    @classmethod
    def of(cls, document: NetworkConfig) -> ToFeConfig:
        """What a manifest says; see `from_dict`."""
        return cls.from_dict(document.to_dict())

    def document(self) -> NetworkConfig:
        """For manifests; the inverse of `of`."""
        arguments = {name: plain(value) for name, value in self.backbone_args.items()}
        return NetworkConfig(**{**self.to_dict(), "backbone_args": arguments})

    @classmethod
    def from_dict(cls, document: object) -> ToFeConfig:
        """The inverse of `to_dict`.

        Raises:
            InputError: a key is unknown, missing, or of the wrong kind.
        """
        if not isinstance(document, Mapping):
            raise InputError(
                "The checkpoint's configuration is not a mapping of names to values.",
                "Save it again.",
                code="config-not-a-mapping",
            )
        known = cls.__dataclass_fields__
        unknown = sorted(str(key) for key in document if key not in known)
        if unknown:
            raise InputError(
                f"The checkpoint's configuration has the unknown key {unknown[0]!r}.",
                f"Known: {', '.join(sorted(known))}.",
                code="config-unknown-key",
                name=unknown[0],
            )
        backbone, arguments = document.get("backbone"), document.get("backbone_args", {})
        starts = document.get("stage_starts", ())
        if not isinstance(backbone, str) or not isinstance(arguments, Mapping):
            raise InputError(
                "The checkpoint's configuration does not name a backbone.",
                "It requires backbone (text) and backbone_args (mapping).",
                code="config-without-backbone",
            )
        if not isinstance(starts, (list, tuple)) or not all(type(start) is int for start in starts):
            raise InputError(
                "The checkpoint's stage_starts are not whole numbers.",
                "Give one block index per stage, such as [3, 6, 9].",
                code="config-stage-starts",
            )
        named = {name: document[name] for name in ("selector", "approximator") if name in document}
        wrong = next((name for name, value in named.items() if not isinstance(value, str)), None)
        if wrong is not None:
            raise InputError(
                f"The checkpoint's {wrong} is not text.", "Save it again.", code="config-not-text", name=wrong
            )
        if not all(isinstance(name, str) for name in arguments):
            raise InputError(
                "The checkpoint's backbone_args have a name that is not text.",
                "Save it again.",
                code="config-not-text",
                name="backbone_args",
            )
        return cls(
            backbone=backbone,
            backbone_args=dict(arguments),
            stage_starts=tuple(starts),
            dense_output=document.get("dense_output", False) is True,
            **named,
        )


def stage_starts_of(config: ToFeConfig, depth: int) -> tuple[int, ...]:
    """First block of each stage of a backbone of `depth` blocks.

    By default quarters of the depth (12 blocks: 3, 6, 9; 16: 4, 8, 12), which needs at least 4 blocks.

    Raises:
        InputError: not ascending, or outside 0..depth-1.
    """
    if config.selector == NO_SELECTOR:
        return ()
    starts = config.stage_starts
    if not starts and depth <= STAGES:
        raise InputError(
            f"A backbone of {depth} blocks is too shallow for {STAGES} stages after its first block.",
            f"Name fewer stages, such as `stages=({max(0, depth - 1)},)`.",
            code="backbone-too-shallow",
            depth=depth,
        )
    chosen = starts or tuple(depth * quarter // (STAGES + 1) for quarter in range(1, STAGES + 1))
    ascending = all(a < b for a, b in itertools.pairwise(chosen))
    if not ascending or chosen[0] < 0 or chosen[-1] >= depth:
        raise InputError(
            f"Stage starts {list(chosen)} do not fit a backbone of {depth} blocks.",
            f"They must ascend and lie in 0..{depth - 1}.",
            code="stage-starts",
            stages=chosen,
            depth=depth,
        )
    return chosen
