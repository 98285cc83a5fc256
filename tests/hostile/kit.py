"""Files that are right, made once: what the hostile ones are made of or stand beside."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.hostile.commands import TUNE

FEW = '[data]\nsource = "images"\nsamples = 4\n'


def make_images(folder: Path, classes: tuple[str, ...] = ("dark", "light"), each: int = 6, size: int = 40) -> None:
    """Noise of two brightnesses, one folder a class; flat without classes."""
    noise = np.random.default_rng(0)
    for label, name in enumerate(classes or ("",)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(each):
            pixels = noise.integers(0, 100, (size, size, 3)) + 150 * (label % 2)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index}.png")


def make_kit(kit: Path) -> None:
    """Runs in a process of its own, in `kit`, which is empty: checkpoints, a model in three forms, a run folder."""
    from tests.helpers import small_tofe
    from tofe_export.checkpoints.checkpoint import Checkpoint, save
    from tofe_export.data.preprocessing import Preprocessing

    make_images(kit / "images")
    make_images(kit / "flat", ())
    model = small_tofe(num_classes=2)
    saved = Checkpoint(
        model, (0.5, 0.3, 0.2), Preprocessing.of_backbone(model.vit), {"val_accuracy": 0.5}, "images", ("dark", "light")
    )
    for name in ("ck.pth", "ck.safetensors"):
        save(kit / name, saved)
    # For tune, which exports a dozen networks: one stage, four tokens.
    small = small_tofe(num_classes=2, depth=2, stage_starts=(1,), img_size=16)
    save(
        kit / "small.pth",
        Checkpoint(small, (0.5,), Preprocessing.of_backbone(small.vit), {}, "images", ("dark", "light")),
    )
    discarding = small_tofe(num_classes=2, approximator="discard", centred=False)
    save(kit / "discard.pth", Checkpoint(discarding, (0.5, 0.3, 0.2), saved.preprocessing, {}, "images"))
    (kit / "few.toml").write_text(FEW)


_QUICK = ("--samples", "4", "--rounds", "1", "--processes", "1")
_TRAIN = (
    *("--backbone", "vit_tiny_patch16_224", "--epochs", "1", "--dense-epochs", "1", "--batch-size", "4"),
    *("--backbone-args", "img_size=32,patch_size=8,embed_dim=32,depth=4,num_heads=2", "--device", "cpu"),
)


def _verify(model: str, checkpoint: str, document: str) -> tuple[str, ...]:
    return ("verify", model, "--against", checkpoint, "--data", "images", "--samples", "4", "--json", document)


def _bench(model: str, document: str) -> tuple[str, ...]:
    return ("bench", model, "--batch", "1", "--rounds", "2", "--processes", "1", "--threads", "1", "--json", document)


# What is made by calling the program: name -> its call, in the order in which they are made.
_COMMANDS: dict[str, tuple[str, ...]] = {
    "model.onnx": ("onnx", "ck.pth", "-o", "model.onnx", "--data", "images"),
    "inlined.onnx": ("onnx", "ck.pth", "-o", "inlined.onnx", "--data", "images", "--inline"),
    "fast.onnx": ("optimize", "model.onnx", "-o", "fast.onnx", "--data", "images"),
    "vino.onnx": ("optimize", "model.onnx", "-o", "vino.onnx", "--data", "images", "--for", "openvino"),
    "tune.json": TUNE,
    "cal.npz": ("quantize", "model.onnx", "--recipe", "few.toml", *_QUICK, "--cache", "cal.npz"),
    "model.engine": ("trt", "model.onnx", "--backend", "rtx", "--batch", "1:1:2"),
    "verify.json": _verify("model.onnx", "ck.pth", "verify.json"),
    "bench.json": _bench("model.onnx", "bench.json"),
    "run/ckpt.pth": ("train", "--data", "images", "-o", "run", *_TRAIN),
    "run/model.onnx": ("onnx", "run/ckpt.pth", "-o", "run/model.onnx", "--data", "images", "--keep", "8,5,3"),
    "run/verify.json": _verify("run/model.onnx", "run/ckpt.pth", "run/verify.json"),
    "run/bench.json": _bench("run/model.onnx", "run/bench.json"),
}


def kit_commands(wanted: Iterable[str]) -> list[tuple[str, ...]]:
    """Command lines that make what is `wanted` of the kit; each for a process of its own, in the kit's folder."""
    found = {name.partition(">")[0].removesuffix(".json") for name in wanted} | set(wanted)
    needed = {name for name in _COMMANDS if name in found or name.partition("/")[0] in found}
    if needed:
        needed.add("model.onnx")
    return [command for name, command in _COMMANDS.items() if name in needed]


def copy_into(kit: Path, wanted: tuple[str, ...], folder: Path) -> None:
    """Copies files and folders of the kit; "a>b" copies a as b."""
    for entry in dict.fromkeys(wanted):
        name, _, other = entry.partition(">")
        source, target = kit / name, folder / (other or name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, target)


def restamp(model: Path, **changes: object) -> None:
    """Changes fields of a model's manifest, and makes its hash fit the model; a field that is `...` is removed."""
    import hashlib

    beside = model.with_name(model.name + ".json")
    manifest = json.loads(beside.read_text()) | {"sha256": hashlib.sha256(model.read_bytes()).hexdigest()} | changes
    beside.write_text(json.dumps({key: value for key, value in manifest.items() if value is not ...}))


def is_root() -> bool:
    """Whether permissions stop nobody here."""
    return os.name == "posix" and os.geteuid() == 0
