"""One job of the queue: the teacher of a seed, or an arm of it; done in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from studies import fingerprints, measuring, results, tokens
from studies.choices import top_choice
from studies.experiments import ARMS, COUNTED, FUSED, LEARNED, RANDOM, SETS, TEACHER, Arm
from studies.images import Loaded, load
from studies.networks import network_of, recipe_of
from studies.training import given_counts, train_arm, train_teacher
from tofe_export.checkpoints import checkpoint
from tofe_export.documents.machine import describe_machine
from tofe_export.errors import InputError
from tofe_export.files.writing import atomic_path
from tofe_export.model.selector import Choose, threshold_choice
from tofe_export.model.tofe import ToFe
from tofe_export.training.setup import preprocessing_for


@dataclass(frozen=True)
class Place:
    """Where a study runs.

    Attributes:
        images: name of the set.
        data: where it is.
        work: folder for what need not be kept: images read before, teachers, checkpoints.
        results: the file of finished arms.
        device: to compute on.
        threads: of PyTorch in a process.
    """

    images: str
    data: str
    work: Path
    results: Path
    device: str
    threads: int = 1

    def teacher(self, seed: int) -> Path:
        """The file of a teacher's weights, trained with today's settings on these images."""
        return self.work / f"{self._teacher_stem}-{seed}.pt"

    def teachers(self) -> list[int]:
        """Seeds whose teacher is here."""
        there = self.work.glob(f"{self._teacher_stem}-*.pt")
        return sorted(int(path.stem.rpartition("-")[2]) for path in there)

    def checkpoint(self, arm: str, seed: int) -> Path:
        """The file of an arm's network as `train` writes one, for the runtimes."""
        settings = fingerprints.of_settings(self.images, arm)
        return self.work / "checkpoints" / f"{self._teacher_stem}-{arm}-{settings}-{seed}.pth"

    @property
    def kept_images(self) -> Path:
        """The file of the images, decoded."""
        return self.work / f"{self.images}-{fingerprints.of_images(self.images, self.data)}.pt"

    @property
    def _teacher_stem(self) -> str:
        return f"{self.images}-teacher-{fingerprints.of_teacher(self.images, self.data)}"


@dataclass(frozen=True)
class Job:
    """An arm, or the teacher, with a seed."""

    arm: str
    seed: int


def work(place: Place, job: Job) -> Job:
    """Does a job and adds its line to the results."""
    torch.set_num_threads(place.threads)
    begun = time.perf_counter()
    teacher: ToFe | None = None
    if job.arm == TEACHER:
        line, teacher = _teacher(place, job)
    else:
        line = _arm(place, job)
    machine = describe_machine()
    results.append(
        place.results,
        {
            "set": place.images,
            "arm": job.arm,
            "seed": job.seed,
            "recipe": fingerprints.of_settings(place.images, job.arm),
            **line,
            "seconds": round(time.perf_counter() - begun, 1),
            "device": machine.gpu if place.device.startswith("cuda") else machine.processor,
            "torch": torch.__version__,
        },
    )
    if teacher is not None:
        # Last: of a seed with a line and no weights another takes the place, but weights without a line never get one.
        with atomic_path(place.teacher(job.seed)) as path:
            torch.save(teacher.state_dict(), path)
    return job


def _teacher(place: Place, job: Job) -> tuple[dict[str, Any], ToFe]:
    device, loaded = torch.device(place.device), _loaded(place)
    model = train_teacher(SETS[place.images], loaded, job.seed, device)
    right = measuring.dense_answers(model, loaded.held_out, loaded.held_out_labels)
    identity = checkpoint.weights_sha256(model)
    _require_same_teacher(place, job.seed, identity)
    line = {"accuracy": float(right.mean()), "images": len(right), "right": measuring.packed(right)}
    return {**line, "teacher": identity}, model


def _require_same_teacher(place: Place, seed: int, identity: str) -> None:
    """Raises InputError where arms are finished that began with another teacher of this seed: they cannot be compared
    with those that would begin with this one."""
    others = [line for line in results.read(place.results) if line["seed"] == seed and line["teacher"] != identity]
    if others:
        raise InputError(
            f"The teacher of seed {seed} was trained again and became another one than the one of the finished arms, "
            f"which were made on {others[0]['device']} with torch {others[0]['torch']}.",
            f"Give another folder of results (--results), or bring back {place.teacher(seed)}.",
            code="another-teacher",
            seed=seed,
        )


def _arm(place: Place, job: Job) -> dict[str, Any]:
    images, arm, device, loaded = SETS[place.images], ARMS[job.arm], torch.device(place.device), _loaded(place)
    teacher = network_of(recipe_of(images, None, job.seed), None, len(loaded.classes)).to(device)
    teacher.load_state_dict(torch.load(place.teacher(job.seed), weights_only=True, map_location=device))
    identity = checkpoint.weights_sha256(teacher)
    _require_same_teacher(place, job.seed, identity)
    model, steered = train_arm(images, arm, loaded, teacher, job.seed, device)
    recipe = recipe_of(images, arm, job.seed)
    counts = given_counts(model, arm, recipe)
    torch.manual_seed(job.seed)  # of the random arm
    found = measuring.answers(model, measuring.own_forward(model, arm, counts), loaded.held_out, loaded.held_out_labels)
    if arm.shape == "all":
        found = replace(found, macs=1.0)  # a network that freezes nothing is deployed as the dense one
    line = {**found.recorded(), "teacher": identity}
    kept = found.kept
    if arm.selection == LEARNED:
        nothing = torch.zeros(len(loaded.plain), device=device)  # only the numbers of tokens are read
        learned = measuring.answers(model, measuring.own_forward(model, arm, counts), loaded.plain, nothing)
        kept = learned.kept
        line["steering"] = steered
        line["variants"] = measuring.variants(model, learned, loaded.held_out, loaded.held_out_labels)
    if arm.selection not in (FUSED, RANDOM) and not model.discards:
        line["errors"] = tokens.errors(model, teacher.vit, _choice(model, arm, counts), loaded.held_out)
        if arm.selection == LEARNED:
            keep = tuple(min(model.tokens, max(1, round(share * model.tokens))) for share in kept)
            line["histories"] = tokens.histories(model, _choice(model, arm, counts), loaded.held_out)
            line["attention"] = tokens.attention(model, teacher.vit, keep, loaded.held_out)
    if arm.selection in (LEARNED, FUSED, COUNTED) and not arm.selector:
        _save(place, job, model, kept, found)
    return line


def _choice(model: ToFe, arm: Arm, counts: tuple[int, ...]) -> Callable[[], Choose]:
    return lambda: threshold_choice if arm.selection == LEARNED else top_choice(model, counts)


def _save(place: Place, job: Job, model: ToFe, kept: list[float], found: measuring.Answers) -> None:
    """A checkpoint as `train` writes it, for the runtimes; `kept` are shares of the tokens of training images."""
    keep = tuple(min(1.0, max(share, 1 / model.tokens)) for share in kept)
    saved = checkpoint.Checkpoint(
        model=model.to("cpu").eval(),
        keep_ratios=keep,
        preprocessing=preprocessing_for(place.images, model.vit),
        metrics={"val_accuracy": found.accuracy, "macs_ratio": found.macs},
        data=place.images,
        classes=_loaded(place).classes,
    )
    checkpoint.save(place.checkpoint(job.arm, job.seed), saved)


@cache
def _loaded(place: Place) -> Loaded:
    """Once a process."""
    images = SETS[place.images]
    recipe = recipe_of(images, None, 0)
    preprocessing = preprocessing_for(images.name, network_of(recipe, None, 1).vit)
    return load(images, place.data, preprocessing, place.kept_images).to(torch.device(place.device))
