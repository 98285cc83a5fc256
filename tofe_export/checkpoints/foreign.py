"""Checkpoints that others published: DynamicViT's, EViT's, and plain DeiT, ViT and LV-ViT backbones.

Each becomes the same `ToFe` network, so that everything after it has one path: DynamicViT's predictors are the `mlp`
selector and its pruning is the approximator `discard` (Rao et al., arXiv 2106.02034); EViT is the selector
`cls-attention` with the approximator `fuse` or `discard` (Liang et al., arXiv 2202.07800); a plain backbone has no
stages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from tofe_export.checkpoints import shapes
from tofe_export.checkpoints.layouts import Named, read_layout, renamed_by_timm
from tofe_export.checkpoints.own_word import told_by
from tofe_export.checkpoints.unwrap import Choice, Unwrapped
from tofe_export.checkpoints.weights import trained_with
from tofe_export.errors import InputError
from tofe_export.model.approximator import DISCARD, FUSE
from tofe_export.model.config import ToFeConfig
from tofe_export.model.selector import CLS_ATTENTION, NO_SELECTOR

_PREDICTOR = re.compile(r"score_predictor\.(\d+)\.((?:in|out)_conv\.\d+)\.(weight|bias)")
_SELECTOR_PARTS = {
    "in_conv.0": "embed.0",
    "in_conv.1": "embed.1",
    "out_conv.0": "mix",
    "out_conv.2": "mlp.1",
    "out_conv.4": "out",
}
IS_DENSE = "It is dense: no tokens are frozen. To get a ToFe network, train one with this file as `init`."
_CROP_PCT = 224 / 256  # both methods evaluate as DeiT's code does: resized to 256, cropped to 224


@dataclass(frozen=True)
class Hints:
    """What the user says about a file that does not say it itself; everything may be omitted.

    Attributes:
        backbone, backbone_args: of `timm.create_model`.
        selector: `cls-attention` for EViT, `mlp` for DynamicViT, `none` for a plain backbone.
        fuse_token: whether EViT fuses what it drops.
        stages: first block of each stage.
        keep_rate: share of the tokens that DynamicViT or EViT keeps at each stage.
        image_size: (height, width) in pixels that the network takes.
        weights: which of two copies to take, "model" or "ema"; "auto" takes the one that the code which wrote the file
            evaluates.
    """

    backbone: str | None = None
    backbone_args: Mapping[str, Any] = field(default_factory=dict)
    selector: str | None = None
    fuse_token: bool | None = None
    stages: tuple[int, ...] = ()
    keep_rate: float | None = None
    image_size: tuple[int, int] | None = None
    weights: Choice = "auto"

    @classmethod
    def of(cls, config: ToFeConfig, weights: Choice = "auto") -> Hints:
        """Those that turn a foreign file into the network that `config` describes, with one of its copies."""
        arguments = {name: value for name, value in config.backbone_args.items() if name != "img_size"}
        return cls(
            config.backbone,
            arguments,
            config.selector,
            config.approximator == FUSE if config.selector == CLS_ATTENTION else None,
            config.stage_starts,
            image_size=image_size_of(config),
            weights=weights,
        )


@dataclass(frozen=True)
class Recognised:
    """A foreign file as a ToFe network.

    Attributes:
        config: of that network, at the file's own image size.
        weights: under that network's names.
        description: what the file is, for people.
        notes: what the user should know, a sentence each.
        assumed: what neither the file nor the user says, a sentence each.
        keep_rate: as the file or the user says; None where neither does.
        images: what of its preprocessing differs from the backbone's, under timm's names.
        classes: their names; empty where the file does not say them, or says others than it has logits.
    """

    config: ToFeConfig
    weights: dict[str, Tensor]
    description: str
    notes: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    keep_rate: float | None = None
    images: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()


def recognise(file: Unwrapped, hints: Hints, path: Path) -> Recognised:
    """Returns what the foreign file at `path` is, in which `read_weights` found the header and the weights.

    What the user says goes before what the file says, and that before what its shapes show.

    Raises:
        InputError: unknown backbone, predictors of another kind, or hints that contradict the file.
    """
    source, training = str(path), trained_with(file.header)
    read = read_layout(file.weights, path, Named(hints.backbone, hints.backbone_args))
    weights, told = read or (file.weights, told_by(file.header, path))
    predictors = {key: value for key, value in weights.items() if key.startswith("score_predictor.")}
    plain = {key: value for key, value in weights.items() if key not in predictors}
    name = hints.backbone or told.backbone or shapes.backbone_name(plain, source)
    arguments = {**shapes.arguments(plain, name, hints.image_size, source), **hints.backbone_args}
    if name == told.backbone:
        arguments = {**told.arguments, **arguments}
    selector = _selector(hints, bool(predictors), "base_keep_rate" in training, source)
    converted = renamed_by_timm(plain, name, arguments) if hints.backbone or told.backbone else None
    renamed = {f"vit.{key}": value for key, value in (converted or plain).items()}
    guessed = not (hints.backbone or told.backbone or name.startswith("lvvit"))
    given = {*hints.backbone_args, *(("backbone",) if hints.backbone else ())}
    open_still = (one.sentence for one in told.assumed if given.isdisjoint(one.settled_by))
    assumed = (*open_still, *((_guessed(name),) if guessed else ()))
    said = (f"By its own word ({told.by}) it is {name}.",) if told.backbone and not hints.backbone else ()
    turned = ("Its weights were renamed by timm's own converter.",) if converted else ()
    notes = (*said, *told.notes, *turned)
    # Both methods evaluate as DeiT's code does, whatever the file says of its own evaluation.
    images = told.images if name == told.backbone or not told.backbone else {}
    as_deit = {**images, "crop_pct": _CROP_PCT}
    if selector == "mlp":
        if hints.fuse_token is not None:
            message = f"{source} is DynamicViT's, which never fuses tokens."
            raise InputError(message, "Omit `fuse_token`.", code="hint-without-effect", name="fuse_token")
        config = ToFeConfig(name, arguments, hints.stages, selector, DISCARD)
        rate = _rate(hints, training.get("base_rate"))
        both = renamed | _selectors(predictors, source)
        return Recognised(config, both, "DynamicViT", notes, assumed, rate, as_deit)
    if selector == CLS_ATTENTION:
        fuse, guess = _fuses(hints, training)
        stages = hints.stages or tuple(map(int, re.findall(r"\d+", str(training.get("drop_loc", "")))))
        config = ToFeConfig(name, arguments, stages, selector, FUSE if fuse else DISCARD)
        description = f"EViT {'with' if fuse else 'without'} a fused token"
        rate = _rate(hints, training.get("base_keep_rate"))
        return Recognised(config, renamed, description, notes, (*assumed, *guess), rate, as_deit)
    _require_no_pruning(hints, source, name)
    config = ToFeConfig(name, arguments, selector=NO_SELECTOR)
    head = renamed.get("vit.head.weight")
    classes = told.classes if head is not None and tuple(head.shape[:1]) == (len(told.classes),) else ()
    return Recognised(
        config, renamed, "plain backbone, dense", (*notes, IS_DENSE), assumed, images=images, classes=classes
    )


def other_backbone(weights: Mapping[str, Tensor], tried: ToFeConfig) -> str:
    """The next step where these weights do not fit the network that was tried."""
    try:
        by_shapes = shapes.backbone_name(weights, "")
    except InputError:
        by_shapes = tried.backbone
    if by_shapes != tried.backbone:
        return f'By their shapes they belong to {by_shapes}: `backbone="{by_shapes}"`.'
    return (
        "Give what differs from timm's usual network of that name in `backbone_args` (such as depth=6), or another "
        "`backbone`. If parts have other names, rename them as in timm before you save."
    )


def _guessed(name: str) -> str:
    return (
        f"By its shapes it is taken for {name}, and images are prepared as for that one; "
        "if it is another, name it with `backbone`."
    )


def _require_no_pruning(hints: Hints, source: str, backbone: str) -> None:
    """Raises InputError for hints about pruning, of which a plain backbone does none."""
    without_effect = {
        "keep_rate": hints.keep_rate,
        "fuse_token=False" if hints.fuse_token is False else "fuse_token": hints.fuse_token,
        "stages": hints.stages or None,
    }
    hint = next((name for name, value in without_effect.items() if value is not None), None)
    if hint is not None:
        raise InputError(
            f"{source} is a plain backbone, which keeps every token, so `{hint}` has no effect.",
            f'Prune it as EViT does: `selector="{CLS_ATTENTION}"`; or fine-tune it: train with it as `init`.',
            code="keeps-every-token",
            name=hint.partition("=")[0],
            path=source,
            backbone=backbone,
        )


def image_size_of(config: ToFeConfig) -> tuple[int, int] | None:
    """(height, width) in pixels that `config` names; None where it is the backbone's usual."""
    size = config.backbone_args.get("img_size")
    if size is None:
        return None
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def _selector(hints: Hints, predictors: bool, evit: bool, source: str) -> str:
    selector = hints.selector or ("mlp" if predictors else CLS_ATTENTION if evit else NO_SELECTOR)
    if selector not in ("mlp", CLS_ATTENTION, NO_SELECTOR):
        raise InputError(
            f"{source} cannot be read with the selector {selector!r}.",
            f"Use mlp, {CLS_ATTENTION} or {NO_SELECTOR}.",
            code="selector-of-another-method",
            name=selector,
        )
    if predictors and selector != "mlp":
        message = f"{source} has DynamicViT's predictors, so its selector is mlp."
        raise InputError(message, "Omit `selector`.", code="selector-contradicts-file", name=selector)
    if selector == "mlp" and not predictors:
        raise InputError(
            f"{source} has no predictors for the selector mlp.",
            f'Prune without training: `selector="{CLS_ATTENTION}"`; or fine-tune it: train with it as `init`.',
            code="no-predictors",
            path=source,
        )
    return selector


def _selectors(predictors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    renamed = {}
    for key, value in predictors.items():
        match = _PREDICTOR.fullmatch(key)
        if match is None or match.group(2) not in _SELECTOR_PARTS:
            raise InputError(
                f"{source} has a predictor of another kind than DynamicViT's ViTs ({key}).",
                "Only its DeiT and LV-ViT networks can be exported.",
                code="unknown-predictor",
                name=key,
            )
        stage, part, kind = match.groups()
        renamed[f"stages.{stage}.selector.{_SELECTOR_PARTS[part]}.{kind}"] = value
    return renamed


def _rate(hints: Hints, by_file: object) -> float | None:
    if hints.keep_rate is not None:
        return hints.keep_rate
    return float(by_file) if isinstance(by_file, (int, float)) else None


def _fuses(hints: Hints, training: Mapping[str, Any]) -> tuple[bool, list[str]]:
    if hints.fuse_token is not None:
        return hints.fuse_token, []
    if "fuse_token" in training:
        return bool(training["fuse_token"]), []
    return True, ["Taken for EViT with the fused token, as in its published recipe; if not, add `fuse_token=False`."]
