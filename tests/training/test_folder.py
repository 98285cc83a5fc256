"""Training on image folders, through augmentation: a killed run ends as an unkilled one does.

On real images: TOFE_IMAGES=FOLDER pytest -m slow tests/training/test_folder.py, where FOLDER holds train/ and val/ with
one subfolder of images per class.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.runs import RECIPE, KilledError, kill_after, weights
from tofe_export.checkpoints import checkpoint
from tofe_export.data.image_log import ImageLog
from tofe_export.training import trainer
from tofe_export.training.run import RunOptions

IMAGES = 2000
KILLS = 2
PARTS = ("train", "val")
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
SHORT = RECIPE.changed(
    dense={"epochs": 1}, tofe={"epochs": 1}, run={"batch_size": 16, "limit_batches": None, "limit_val": None}
)
_LIMIT_S = 900  # of one part of a run; only so that a hanging one ends


def draw_images(folder: Path, images: int, classes: int = 10) -> Path:
    """Class folders of noisy pictures whose color tells the class; one in ten is held out."""
    numbers = np.random.default_rng(0)
    for index in range(images + images // 10):
        label = index % classes
        part = PARTS[index >= images]
        path = folder / part / f"class {label}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        base = np.array([25 * label, 255 - 25 * label, 120]) + numbers.normal(0, 40, (24, 28, 3))
        Image.fromarray(base.clip(0, 255).astype(np.uint8)).save(path)
    return folder


def take_images(source: Path, folder: Path, images: int) -> Path:
    """The first images of every class of `source`, equally many of each; a tenth as many to hold out."""
    for part, wanted in (("train", images), ("val", images // 10)):
        classes = sorted(path for path in (source / part).iterdir() if path.is_dir())
        for name in classes:
            (folder / part / name.name).mkdir(parents=True)
            for path in sorted(name.iterdir())[: wanted // len(classes)]:
                shutil.copy(path, folder / part / name.name)
    return folder


def command(data: Path, run: Path) -> list[str]:
    network = "img_size=32,patch_size=8,embed_dim=32,depth=4,num_heads=2"
    options = ["--epochs", "3", "--dense-epochs", "2", "--batch-size", "64", "--device", "cpu"]
    start = [sys.executable, "-m", "tofe_export", "train", "--data", str(data), "-o", str(run)]
    return [*start, "--backbone", "vit_tiny_patch16_224", "--backbone-args", network, *options]


def finish(arguments: list[str]) -> str:
    """Runs a command to its end; what it said on standard error."""
    done = subprocess.run(arguments, check=False, env=ONE_THREAD, capture_output=True, text=True, timeout=_LIMIT_S)
    assert done.returncode == 0, done.stderr
    return done.stderr


def epochs_of(run: Path) -> int:
    metrics = run / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0


def kill_in(run: Path, process: subprocess.Popen[bytes], epoch: int, share: float) -> str:
    """SIGKILL when `epoch` epochs are done and about `share` of the next, as measured by the one before."""
    begun, last, lasted = time.monotonic(), time.monotonic(), 0.0
    done = epochs_of(run)
    while done < epoch or (epoch == 0 and not run.exists()):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() - begun < _LIMIT_S
        time.sleep(0.01)
        if (now := epochs_of(run)) != done:
            done, lasted, last = now, time.monotonic() - last, time.monotonic()
    time.sleep(share * (lasted if done > 1 else 1.0))
    assert process.poll() is None, "the run ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    return f"after {epochs_of(run)} epochs"


def check_kills(data: Path, folder: Path) -> None:
    """Trains once through, and once with kills at random moments; both must leave the same."""
    whole, killed = folder / "whole", folder / "killed"
    assert "none left out" in finish(command(data, whole))
    moments = random.Random()
    seed = moments.randrange(2**32)
    moments.seed(seed)
    epochs = sorted(moments.sample(range(5), KILLS))
    killings = []
    for place, epoch in enumerate(epochs):
        resume = ["--resume"] * bool(place)
        process = subprocess.Popen(
            [*command(data, killed), *resume], env=ONE_THREAD, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        killings.append(kill_in(killed, process, epoch, moments.uniform(0, 0.9)))
    finish([*command(data, killed), "--resume"])
    expected, found = weights(whole / "ckpt.pth"), weights(killed / "ckpt.pth")
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items()), f"moments seed {seed}"
    assert (killed / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    first, second = (checkpoint.load(run / "ckpt.pth") for run in (whole, killed))
    assert first.metrics == second.metrics
    assert first.keep_ratios == second.keep_ratios
    assert not list(killed.glob("*.part"))
    images = sum(1 for path in (data / "train").rglob("*") if path.is_file())
    print(
        f"\n{images} images: killed {', '.join(killings)} (moments seed {seed}); {len(expected)} tensors of "
        f"{sum(value.numel() for value in expected.values())} numbers and 5 epochs of metrics equal bit for bit; "
        f"held-out accuracy {first.metrics['val_accuracy']:.3f}"
    )


def test_a_killed_run_on_a_folder_resumes_to_bitwise_equal_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = draw_images(tmp_path / "data", 60, classes=3)
    options, log = RunOptions(str(data), device="cpu"), ImageLog()
    whole = trainer.train(SHORT, options, tmp_path / "whole", log=log).path
    assert (log.read, log.left_out) == (66, {})
    killed = tmp_path / "killed"
    with monkeypatch.context() as patch:
        kill_after(patch, 4)
        with pytest.raises(KilledError):
            trainer.train(SHORT, options, killed)
    torch.rand(3)
    np.random.default_rng().random()
    found, expected = weights(trainer.train(SHORT, options, killed, resume=True).path), weights(whole)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert (killed / "metrics.jsonl").read_text() == (tmp_path / "whole" / "metrics.jsonl").read_text()


def test_workers_change_nothing(tmp_path: Path) -> None:
    data = draw_images(tmp_path / "data", 40, classes=4)
    recipe = SHORT.changed(dense={"epochs": 0})
    runs = [
        trainer.train(recipe, RunOptions(str(data), device="cpu", workers=workers), tmp_path / str(workers)).path
        for workers in (0, 1)
    ]
    for first, second in itertools.pairwise(weights(run) for run in runs):
        assert all(torch.equal(first[name], value) for name, value in second.items())


@pytest.mark.slow
def test_sigkills_on_drawn_images(tmp_path: Path) -> None:
    check_kills(draw_images(tmp_path / "data", IMAGES), tmp_path)


@pytest.mark.slow
def test_sigkills_on_real_images(tmp_path: Path) -> None:
    folder = os.environ.get("TOFE_IMAGES")
    if not folder:
        pytest.skip("TOFE_IMAGES names no folder of real images with train/ and val/")
    check_kills(take_images(Path(folder), tmp_path / "data", IMAGES), tmp_path)
