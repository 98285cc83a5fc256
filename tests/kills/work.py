"""What is killed: each verb in its own process, forked off one that has loaded PyTorch; as small as it gets."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.helpers import SMALL, small_tofe
from tofe_export.api.build import build
from tofe_export.api.export import export
from tofe_export.api.quantize import quantize as quantize_model
from tofe_export.checkpoints.checkpoint import Checkpoint, save
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.documents.training_recipe import TrainingRecipe
from tofe_export.training.run import RunOptions
from tofe_export.training.trainer import train as train_model

RECIPE = '[data]\nsource = "photos"\nsamples = {}\n'
TRAINING = TrainingRecipe(name="short").changed(
    network={
        "backbone": "vit_tiny_patch16_224",
        "backbone_args": {name: SMALL[name] for name in SMALL if name != "num_classes"},
    },
    dense={"epochs": 2},
    tofe={"epochs": 2},
    run={"batch_size": 8, "limit_batches": 2, "limit_val": 16},
)
OPTIONS = RunOptions("digits", device="cpu", save_minutes=0.0)


def prepare(folder: Path) -> None:
    """Checkpoint, recipes, and an exported model to start from."""
    model = small_tofe()
    saved = Checkpoint(model, (0.5, 0.3, 0.2), Preprocessing.of_backbone(model.vit), {}, "photos")
    save(folder / "ckpt.pth", saved)
    for samples in (4, 8):
        (folder / f"{samples}.toml").write_text(RECIPE.format(samples))
    onnx(folder, 0, folder / "source.onnx")


def onnx(folder: Path, form: int, target: Path | None = None) -> None:
    """Two exports of one checkpoint."""
    export(folder / "ckpt.pth", target or folder / "onnx.onnx", keep=(8, 5, 3 + form))


def quantize(folder: Path, form: int) -> None:
    """Two calibrations of one model."""
    calibration = {"recipe": folder / f"{(4, 8)[form]}.toml", "cache": folder / f"{form}.npz"}
    quick = {"samples": 4, "batches": (1,), "rounds": 1, "processes": 1, "threads": 1}
    quantize_model(folder / "source.onnx", folder / "quantize.onnx", **calibration, **quick)


def trt(folder: Path, form: int) -> None:
    """Two precisions of one engine (TensorRT-RTX builds without a GPU)."""
    build(folder / "source.onnx", folder / "trt.engine", precision=("fp32", "fp16")[form], backend="rtx")


def train(folder: Path, form: int) -> None:
    """The run in `folder`/RUN, begun or gone on with."""
    train_model(TRAINING.changed(run={"seed": form}), OPTIONS, folder / "run", resume=True)


VERBS: dict[str, Callable[[Path, int], None]] = {"onnx": onnx, "quantize": quantize, "trt": trt, "train": train}


def start(verb: str, folder: Path, form: int) -> BaseProcess:
    """`verb` in a process of its own, which fails with a traceback in `folder`/log."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.kills.work", "tensorrt_rtx", "onnxscript", "onnxruntime.quantization"])
    process = context.Process(target=_work, args=(verb, str(folder), form))
    process.start()
    return process


def _work(verb: str, folder: str, form: int) -> None:
    # Under a group of its own: nothing else dies with it, and it dies with nothing else.
    with (Path(folder) / "log").open("a") as log, contextlib.redirect_stderr(log), contextlib.redirect_stdout(log):
        os.dup2(log.fileno(), 2)
        VERBS[verb](Path(folder), form)
