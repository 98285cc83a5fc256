"""Do saved MACs become saved time? The networks of one seed in runtimes: accuracy beside measured latency."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import tofe_export
from studies import fingerprints
from studies.experiments import SETS, TEACHER
from studies.networks import network_of, recipe_of
from studies.work import Place
from tofe_export.checkpoints import checkpoint
from tofe_export.documents.machine import describe_machine, describe_versions
from tofe_export.errors import InputError
from tofe_export.model.config import ToFeConfig
from tofe_export.model.selector import NO_SELECTOR
from tofe_export.model.tofe import build_tofe

ARMS = (
    *(f"{kind}-{budget}" for kind in ("bottleneck", "discard", "evit") for budget in (70, 50, 35)),
    *("identity-50", "block-50", "linear-50"),
)
FORMS = ("onnxruntime", "openvino", "int8")
_CALIBRATION = "imagenet"  # photographs, with the parts that choose tokens left alone; on the study's own images


def measure(
    place: Place, batches: Sequence[int], rounds: int, threads: int, arms: Sequence[str] = ARMS
) -> dict[str, Any]:
    """Exports arms of one seed and their teacher, and measures each beside the dense network that it was made of.

    The fixed counts are the means of what the network keeps of training images. Accuracy is over all held-out images;
    `share` is of the dense network's MACs, with the fixed counts. Run it on an otherwise idle machine.

    Returns:
        A JSON document with a row an arm, form and batch size.

    Raises:
        InputError: no seed has networks of all these arms.
    """
    seed = _complete_seed(place, arms)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = {arm: place.checkpoint(arm, seed) for arm in arms}
        sources[TEACHER] = _save_teacher(place, seed, sources[arms[0]], folder)
        for arm, source in sources.items():
            files = _files(source, folder / arm, place.data)
            right = {form: _accuracy(path, source, place.data) for form, path in files.items()}
            timed = tofe_export.bench(
                list(files.values()), batches=batches, rounds=rounds, processes=3, threads=threads
            )
            forms = {path.name: form for form, path in files.items()}
            whole = next(row.gmacs for row in timed.rows if row.dense)
            for row in timed.rows:
                if row.name in forms:
                    form, share = forms[row.name], row.gmacs / whole
                    rows.append({"arm": arm, "form": form, "accuracy": right[form], "share": share, **row.to_dict()})
    return {
        "schema": "tofe-export/benchmark/1",
        "command": f"python -m studies hardware --data {place.images}=DATA",
        "machine": describe_machine().to_dict(),
        "versions": describe_versions(),
        "settings": {
            "set": place.images,
            "arms": [
                {"arm": arm, "seed": seed, "recipe": fingerprints.of_settings(place.images, arm)} for arm in sources
            ],
            "rounds": rounds,
            "threads": threads,
            "form": "elide",
        },
        "rows": rows,
    }


def _complete_seed(place: Place, arms: Sequence[str]) -> int:
    """The lowest seed whose teacher and arms are all here: seeds may have been replaced by new ones."""
    here = place.teachers()
    missing = {seed: [arm for arm in arms if not place.checkpoint(arm, seed).exists()] for seed in here}
    complete = [seed for seed in here if not missing[seed]]
    if complete:
        return complete[0]
    nearest = min(here, key=lambda seed: len(missing[seed]), default=None)
    raise InputError(
        f"{place.work} has no trained networks of {place.images}."
        if nearest is None
        else f"No seed of {place.images} has all arms; seed {nearest} lacks {', '.join(missing[nearest])}.",
        "Train them, with the same --work and --data: `python -m studies run approximation budget selector`.",
        code="networks-missing",
    )


def _save_teacher(place: Place, seed: int, beside: Path, folder: Path) -> Path:
    """The dense network as a checkpoint; images and classes are those of an arm."""
    arm = checkpoint.load(beside)
    trained = network_of(recipe_of(SETS[place.images], None, seed), None, len(arm.classes))
    trained.load_state_dict(torch.load(place.teacher(seed), weights_only=True, map_location="cpu"))
    dense = build_tofe(ToFeConfig(trained.config.backbone, trained.config.backbone_args, selector=NO_SELECTOR)).eval()
    dense.vit.load_state_dict(trained.vit.state_dict())
    path = folder / "teacher.pth"
    checkpoint.save(path, checkpoint.Checkpoint(dense, (), arm.preprocessing, data=arm.data, classes=arm.classes))
    return path


def _files(source: Path, folder: Path, data: str) -> dict[str, Path]:
    folder.mkdir()
    plain = tofe_export.export(source, folder / "onnxruntime.onnx", rearrange="elide").path
    vino = tofe_export.optimize(plain, folder / "openvino.onnx", target="openvino").path
    eight = tofe_export.quantize(
        plain, folder / "int8.onnx", recipe=_CALIBRATION, data=data, batches=1, rounds=1, processes=1
    ).path
    return dict(zip(FORMS, (plain, vino, eight), strict=True))


def _accuracy(path: Path, source: Path, data: str) -> float:
    verified = tofe_export.verify(path, against=source, data=data, samples=1_000_000, threshold=False).artifacts[0]
    assert verified.accuracy is not None  # the held-out images have labels
    return verified.accuracy.deployed
