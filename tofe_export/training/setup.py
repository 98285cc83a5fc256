"""The parts of a run before its first step: device, sources, network, starting weights."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import torch

from tofe_export.checkpoints.checkpoint import OWN, load_for
from tofe_export.checkpoints.foreign import IS_DENSE
from tofe_export.data.images import ImageSource
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.data.sources import DIGITS, open_source
from tofe_export.documents.training_recipe import ImagesTable, TrainingRecipe
from tofe_export.errors import InputError, MissingError
from tofe_export.files.names import readable
from tofe_export.model import backbones
from tofe_export.model.approximator import BlockApproximator
from tofe_export.model.config import ToFeConfig
from tofe_export.model.families import Backbone
from tofe_export.model.selector import CLS_ATTENTION, NO_SELECTOR, AttentionSelector, LinearSelector
from tofe_export.model.stage import Stage
from tofe_export.model.tofe import ToFe, build_tofe
from tofe_export.progress import Note, unheard
from tofe_export.training.torchrun import local_rank, started

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:[0-9]{1,2})?")
_DIGITS_MEAN = (0.25, 0.25, 0.25)  # close to their mean (0.27) and their standard deviation (0.26) on the canvases
_NOT_OF_DIGITS = ("scale", "flip", "color_jitter", "auto_augment", "erasing")
_SINCOS_SCALE = 0.5
_FRESH = 0.02  # of PyTorch's first weights: scores that differ by as little as those of a fresh mlp selector


def choose_device(name: str) -> torch.device:
    """The device that a name means; "auto" and "cuda" are this process's own GPU where several share the machine.

    Raises:
        InputError: no such name.
        MissingError: a GPU is named and there is none.
    """
    if not _DEVICE.fullmatch(name):
        raise InputError(
            f"There is no device {name!r}.", "Use auto, cpu, cuda or cuda:N.", code="unknown-device", name=name
        )
    if name.startswith("cuda:") and started():
        raise InputError(
            f"Each process takes a GPU of its own, and {name!r} would be the same one for all of them.",
            'Use `device="cuda"`; CUDA_VISIBLE_DEVICES chooses among the GPUs.',
            code="one-device-for-all",
            name=name,
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device("cuda", local_rank()) if name == "cuda" else torch.device(name)
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


def open_labelled(data: str, seed: int) -> tuple[ImageSource, ImageSource]:
    """The training images and the held-out ones.

    Raises:
        InputError: they have no labels, or not the same ones.
    """
    train, held_out = open_source(data, "train", seed), open_source(data, "val", seed)
    if not train.classes:
        raise InputError(
            f"{readable(data)} has no labels to train with.",
            "Give a folder with one subfolder of images per class, or shards or a dataset with labels.",
            code="no-labels",
            name=data,
        )
    if held_out.classes != train.classes:
        raise InputError(
            f"{train.name} and {held_out.name} do not have the same classes.",
            "Make them equal.",
            code="classes-differ",
        )
    return train, held_out


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


def require_divisible(recipe: TrainingRecipe, processes: int) -> None:
    """Raises InputError where the images of a step cannot be shared out equally."""
    run = recipe.run
    parts = processes * run.accumulate
    if run.batch_size % parts:
        raise InputError(
            f"Steps of {run.batch_size} images cannot be cut into {parts} equal parts: one for each of the processes "
            f"({processes}), times run.accumulate ({run.accumulate}).",
            f"Give a `batch_size` that is a multiple of {parts}, such as "
            f"{max(parts, round(run.batch_size / parts) * parts)}.",
            code="batch-size-shares",
            batch=run.batch_size,
            parts=parts,
        )
    if (recipe.images.mixup or recipe.images.cutmix) and run.batch_size // parts % 2:
        raise InputError(
            f"Images are mixed in pairs, and {run.batch_size // parts} at a time is an odd number.",
            f"Give a `batch_size` that is a multiple of {2 * parts}.",
            code="mixing-needs-pairs",
            batch=run.batch_size,
        )


def preprocessing_for(data: str, vit: Backbone) -> Preprocessing:
    """The backbone's own; digits are never cropped, for they lie at the very edge, and have a mean of their own."""
    own = Preprocessing.of_backbone(vit)
    return own if data != DIGITS else dataclasses.replace(own, mean=_DIGITS_MEAN, std=_DIGITS_MEAN, crop_pct=1.0)


def note_of_digits(images: ImagesTable) -> str:
    """What is not used of this table where the digits' own source augments them; "" where it asks for nothing."""
    usual = ImagesTable()
    unused = [name for name in _NOT_OF_DIGITS if getattr(images, name) != getattr(usual, name)]
    keys = ", ".join(f"images.{name}" for name in unused)
    return f"The digits come augmented by their source, so the recipe's {keys} changes nothing." if unused else ""


def require_trainable(config: ToFeConfig) -> None:
    """Raises InputError for a network that training cannot do anything for."""
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


def build_network(
    recipe: TrainingRecipe, config: ToFeConfig, pretrained: bool, init: Path | None, note: Note = unheard
) -> tuple[ToFe, bool]:
    """The network on the CPU, and whether its classifier came with its weights, so that it can teach.

    `note` is called with what the user should know about the file of its first weights.

    Raises:
        InputError, MissingError: see `require_trainable`, `build_tofe` and `load_init`.
    """
    require_trainable(config)
    torch.manual_seed(recipe.run.seed)
    model = build_tofe(config, pretrained)
    keep_most(model, recipe.tofe.initial_keep)
    if init is not None:
        return model, load_init(model, init, note)
    if pretrained:
        return model, model.vit.num_classes == model.vit.pretrained_cfg.get("num_classes")
    if recipe.network.positions == "sincos":
        set_sincos_positions(model.vit)
    return model, False


def keep_most(model: ToFe, share: float) -> None:
    """Fresh selectors keep this share: fine-tuning starts near the dense network, not from half of its tokens.

    Nor do they begin with an order of their own: the linear layer would make a strong one, by chance, of features that
    were normalized just before it.
    """
    for stage in model.stages:
        assert isinstance(stage, Stage)
        out = stage.get_submodule("selector.out")
        out.get_parameter("bias").data = torch.tensor([math.log(share / (1 - share)), 0.0])
        if isinstance(stage.selector, LinearSelector | AttentionSelector):
            out.get_parameter("weight").data *= _FRESH


def load_init(model: ToFe, path: Path, note: Note = unheard) -> bool:
    """Starts from weights in a file, whoever wrote it: a ToFe checkpoint's, or a backbone's alone.

    Position embeddings are resized to the network's images. A head of another number of classes is left as it is, and
    so is one that the file lacks. `note` is called with each thing that was chosen or left out.

    Returns:
        Whether the file had a classifier that fits.

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
        note(f"{path} has no classifier that fits, so the run's own stays as it is ({', '.join(skipped)}).")
    for sentence in (*loaded.notes, *loaded.assumed):
        if sentence != IS_DENSE:  # it says to do what is being done
            note(sentence)
    theirs, usual = loaded.preprocessing, Preprocessing.of_backbone(model.vit)
    if not own and theirs != usual:
        differing = [name for name, value in vars(usual).items() if getattr(theirs, name) != value]
        said = ", ".join(f"{name} {getattr(theirs, name)}" for name in differing)
        note(
            f"The images of {path} were prepared otherwise ({said}); this run prepares them as {model.config.backbone}."
        )
    model.load_state_dict(fitting, strict=False)
    if not own:
        copy_blocks(model)
    return not skipped


def copy_blocks(model: ToFe) -> None:
    """Approximators of the kind `block` become copies of the first block of their stage as it is now.

    They were when the network was built (`build_approximator`), but since then its backbone has learned or was loaded.
    Other kinds stay as they are.
    """
    for stage, blocks in zip(model.stages, model.stage_blocks, strict=True):
        assert isinstance(stage, Stage)
        if isinstance(stage.approximator, BlockApproximator):
            stage.approximator.block.load_state_dict(model.vit.blocks[blocks.start].state_dict())


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
