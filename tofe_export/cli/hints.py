"""Options that say what a checkpoint of somebody else's does not say itself; verbs that read checkpoints share them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from typer import Option

from tofe_export.cli.parse import image_size, keyword_arguments, whole_numbers

if TYPE_CHECKING:
    from tofe_export.checkpoints.foreign import Hints

_PANEL = "Other people's checkpoints"

Backbone = Annotated[
    str | None, Option(help="timm model name, where the shapes do not tell.", metavar="NAME", rich_help_panel=_PANEL)
]
BackboneArgs = Annotated[
    str, Option(help="Arguments of timm.create_model.", metavar="qkv_bias=false", rich_help_panel=_PANEL)
]
Selector = Annotated[
    str | None,
    Option(
        help="cls-attention: select as EViT does. Default: mlp where DynamicViT's predictors are, else none.",
        rich_help_panel=_PANEL,
    ),
]
FuseToken = Annotated[
    bool | None,
    Option(
        "--fuse-token/--no-fuse-token",
        help="EViT: add what is dropped up into one token; default: as the file says, else yes.",
        rich_help_panel=_PANEL,
    ),
]
Stages = Annotated[
    str | None, Option(help="First block of each stage; default: quarters.", metavar="3,6,9", rich_help_panel=_PANEL)
]
KeepRate = Annotated[
    float | None,
    Option(
        help="Share of the tokens kept at each stage, rounded as the method does.", metavar="R", rich_help_panel=_PANEL
    ),
]
Weights = Annotated[
    Literal["auto", "model", "ema"],
    Option(
        help="Which of two copies of the weights; auto: the one that the code which wrote the file evaluates.",
        rich_help_panel=_PANEL,
    ),
]
ImageSize = Annotated[
    str | None, Option("--img-size", help="Make the network take images of this size.", metavar="384 or HEIGHTxWIDTH")
]


def hints_from(
    backbone: str | None,
    backbone_args: str,
    selector: str | None,
    fuse_token: bool | None,
    stages: str | None,
    keep_rate: float | None,
    img_size: str | None,
    weights: Literal["auto", "model", "ema"],
) -> Hints:
    """The options above as one object."""
    from tofe_export.checkpoints.foreign import Hints

    return Hints(
        backbone=backbone,
        backbone_args=keyword_arguments(backbone_args),
        selector=selector,
        fuse_token=fuse_token,
        stages=whole_numbers(stages, "--stages") if stages else (),
        keep_rate=keep_rate,
        image_size=image_size(img_size) if img_size else None,
        weights=weights,
    )


def typed(
    backbone: str | None,
    backbone_args: str,
    selector: str | None,
    fuse_token: bool | None,
    stages: str | None,
    img_size: str | None,
    weights: str,
) -> tuple[str, ...]:
    """The options above, without the keep rate, as words of another verb's command."""
    given = {
        "--backbone": backbone,
        "--backbone-args": backbone_args,
        "--selector": selector,
        "--stages": stages,
        "--img-size": img_size,
        "--weights": None if weights == "auto" else weights,
    }
    words = [word for option, value in given.items() if value for word in (option, value)]
    if fuse_token is not None:
        words.append("--fuse-token" if fuse_token else "--no-fuse-token")
    return tuple(words)
