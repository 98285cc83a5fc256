"""The parts of a run before its first step: device, sources, network, starting weights, optimizer."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import torch
from timm.optim import param_groups_weight_decay

from tofe_export.checkpoints.checkpoint import OWN, load_for
from tofe_export.checkpoints.foreign import DENSE
from tofe_export.data.images import ImageSource
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.data.sources import open_source
from tofe_export.errors import InputError, MissingError
from tofe_export.files.names import readable
from tofe_export.model import backbones
from tofe_export.model.config import ToFeConfig
from tofe_export.model.families import Backbone
from tofe_export.model.selector import CLS_ATTENTION, NO_SELECTOR
from tofe_export.model.tofe import ToFe, build_tofe
from tofe_export.progress import Note, unheard
from tofe_export.training.settings import TrainSettings

_WITHOUT_DECAY = (
    *("pos_embed", "cls_token", "reg_token", "dist_token"),
    *("relative_position_bias_table", "rope.freqs"),
)
_DIGITS = (0.25, 0.25, 0.25)  # close to their mean (0.27) and their standard deviation (0.26) on the canvases
_SINCOS_SCALE = 0.5


def choose_device(name: str) -> torch.device:
    """The device that a setting names; see `TrainSettings`.

    Raises:
        MissingError: a GPU is named and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    no_metal = name == "mps" and not torch.backends.mps.is_available()
    no_cuda = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    if no_metal or no_cuda:
        raise MissingError(
            f"This machine has no {'Metal' if no_metal else 'CUDA'} device {name!r} that PyTorch can use.",
            'Use `device="cpu"`.',
            code="no-device",
            name=name,
        )
    return device


def open_labelled(settings: TrainSettings, split: str) -> ImageSource:
    """The training or held-out images.

    Raises:
        InputError: they have no labels.
    """
    source = open_source(settings.data, "train" if split == "train" else "val", settings.seed)
    if not source.classes:
        raise InputError(
            f"{readable(settings.data)} has no labels to train with.",
            "Give a folder with one subfolder of images per class, or shards or a dataset with labels.",
            code="no-labels",
            name=settings.data,
        )
    return source


def with_classes(config: ToFeConfig, source: ImageSource) -> ToFeConfig:
    """`config` with as many classes as `source` has.

    Raises:
        InputError: it already names another number.
    """
    wanted = len(source.classes)
    given = config.backbone_args.get("num_classes", wanted)
    if given != wanted:
        raise InputError(
            f"{source.name} has {wanted} classes, but num_classes is {given}.",
            "Omit num_classes, or choose other data.",
            code="num-classes",
            classes=wanted,
            given=given,
        )
    return dataclasses.replace(config, backbone_args={**config.backbone_args, "num_classes": wanted})


def preprocessing_for(data: str, vit: Backbone) -> Preprocessing:
    """The backbone's own; digits are never cropped, for they lie at the very edge, and have a mean of their own."""
    own = Preprocessing.of_backbone(vit)
    return own if data != "digits" else dataclasses.replace(own, mean=_DIGITS, std=_DIGITS, crop_pct=1.0)


def build_network(
    settings: TrainSettings, config: ToFeConfig, pretrained: bool, init: Path | None, note: Note = unheard
) -> ToFe:
    """The network on the CPU; `note` is called with what the user should know about the file of its first weights.

    Raises:
        InputError, MissingError: see `build_tofe` and `load_init`.
    """
    if config.selector in (CLS_ATTENTION, NO_SELECTOR):
        raise InputError(
            f"The selector {config.selector!r} has nothing to train.",
            "Choose another: mlp, linear or attention.",
            code="nothing-to-train",
            selector=config.selector,
        )
    if config.backbone_args.get("patch_drop_rate"):
        message = "With patch_drop_rate the backbone itself drops tokens at random, and the teacher keeps others."
        raise InputError(message, "Omit it.", code="patch-drop")
    torch.manual_seed(settings.seed)
    model = build_tofe(config, pretrained)
    for stage in model.stages:
        # Fresh selectors keep most tokens: fine-tuning starts near the dense network, not from half of its tokens.
        bias = stage.get_submodule("selector.out").get_parameter("bias")
        bias.data = torch.tensor([math.log(settings.initial_keep / (1 - settings.initial_keep)), 0.0])
    if init is not None:
        load_init(model, init, note)
    elif not pretrained and settings.positions == "sincos":
        set_sincos_positions(model.vit)
    return model


def load_init(model: ToFe, path: Path, note: Note = unheard) -> None:
    """Starts from weights in a file, whoever wrote it: a ToFe checkpoint's, or a backbone's alone.

    Position embeddings are resized to the network's images. A head of another number of classes is left as it is, and
    so is one that the file lacks. `note` is called with each thing that was chosen or left out.

    Raises:
        InputError: unreadable, or not this backbone's weights.
        MissingError: a name on the hub without a network; see `hub.local`.
    """
    loaded = load_for(path, model.config, backbones.image_shape(model.vit)[1:])
    own = loaded.recognised == OWN
    prefix = "" if own else "vit."  # the rest of another method's network has no place here
    weights, expected = (
        {key: value for key, value in network.state_dict().items() if key.startswith(prefix)}
        for network in (loaded.model, model)
    )
    heads = ("vit.head", "vit.aux_head")
    fitting = {
        key: value
        for key, value in weights.items()
        if not key.startswith(heads) or (key in expected and expected[key].shape == value.shape)
    }
    wrong = [key for key, value in fitting.items() if key not in expected or expected[key].shape != value.shape]
    missing = [key for key in expected if key not in weights and not key.startswith(heads)]
    if wrong or missing:
        raise InputError(
            f"The weights in {path} are not those of {model.config.backbone}: "
            f"{len(missing)} are missing and {len(wrong)} do not fit, such as {(wrong or missing)[0]}.",
            "Name the backbone they belong to with `backbone` and `backbone_args`.",
            code="weights-do-not-fit",
            path=path,
            backbone=model.config.backbone,
        )
    skipped = sorted(key for key in expected if key.startswith(heads) and key not in fitting)
    if skipped:
        note(f"{path} has no classifier that fits; this run's own stays as it is ({', '.join(skipped)}).")
    for sentence in (*loaded.notes, *loaded.assumed):
        if sentence != DENSE:  # it says to do what is being done
            note(sentence)
    theirs, usual = loaded.preprocessing, Preprocessing.of_backbone(model.vit)
    if not own and theirs != usual:
        differing = [name for name, value in vars(usual).items() if getattr(theirs, name) != value]
        said = ", ".join(f"{name} {getattr(theirs, name)}" for name in differing)
        note(
            f"The images of {path} were prepared otherwise ({said}); this run prepares them as {model.config.backbone}."
        )
    model.load_state_dict(fitting, strict=False)


def set_sincos_positions(vit: Backbone) -> None:
    """Fixed 2-D sine-cosine waves as the first value of the (still learned) position embedding.

    A small ViT from scratch learns where tokens are faster from there than from noise (Beyer et al., arXiv 2205.01580).
    """
    rows, columns = vit.patch_embed.grid_size
    positions = getattr(vit, "pos_embed", None)
    if positions is None:
        raise InputError(
            "This backbone has no position embedding.", "Leave positions at 'learned'.", code="no-position-embedding"
        )
    quarter = vit.embed_dim // 4
    waves = torch.exp(-math.log(10000.0) * torch.arange(quarter) / quarter)
    y = torch.arange(rows).repeat_interleave(columns)[:, None] * waves
    x = torch.arange(columns).repeat(rows)[:, None] * waves
    table = torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1) * _SINCOS_SCALE
    with torch.no_grad():
        positions[0, positions.shape[1] - rows * columns :, : table.shape[1]] = table


def build_optimizer(model: ToFe, settings: TrainSettings, phase: str) -> torch.optim.AdamW:
    """AdamW; every group carries its peak rate as `peak_lr`. The dense phase trains the backbone alone."""
    rates = [(model.vit, settings.lr * settings.backbone_lr_scale), (model.stages, settings.lr)]
    groups = []
    for module, lr in [(model.vit, settings.dense_lr)] if phase == "dense" else rates:
        without = [name for name, _ in module.named_parameters() if name.endswith(_WITHOUT_DECAY)]
        decayed = param_groups_weight_decay(module, settings.weight_decay, no_weight_decay_list=without)
        groups += [{**group, "peak_lr": lr, "lr": lr} for group in reversed(decayed)]  # as in saved optimizers
    return torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.95), fused=True)
