"""Training a ToFe network: the dense backbone first where it has no weights, then ToFe with the dense weights as
its teacher. A killed run continues exactly where its last whole epoch ended."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tofe_export.checkpoints import checkpoint
from tofe_export.data.image_log import ImageLog
from tofe_export.data.images import batches
from tofe_export.errors import InputError
from tofe_export.files.names import CHECKPOINT, STATE, readable
from tofe_export.model.config import ToFeConfig
from tofe_export.progress import Note, Progress, silent, unheard
from tofe_export.training import setup
from tofe_export.training.loop import Evaluation, Phase, Watch, evaluate, run_epoch, unwatched
from tofe_export.training.settings import TrainSettings
from tofe_export.training.state import RunState, damaged, load_state, save_state, write_metrics

_FREE_TO_CHANGE = {"device", "workers"}  # a resumed run may move to another machine


def train(
    settings: TrainSettings,
    config: ToFeConfig,
    out_dir: Path,
    pretrained: bool = False,
    init: Path | None = None,
    resume: bool = False,
    progress: Progress = silent,
    watch: Watch = unwatched,
    log: ImageLog | None = None,
    note: Note = unheard,
) -> Path:
    """Trains, and writes `out_dir`/ckpt.pth, beside it state.pt (for resuming) and metrics.jsonl (one line per epoch).

    Args:
        settings: how to train.
        config: the network; `num_classes` is filled in from the data.
        out_dir: the run's folder, created when missing.
        pretrained: start from timm's weights and skip the dense phase.
        init: start from these weights and skip the dense phase.
        resume: continue the run in `out_dir`; with no whole epoch saved yet, start it.
        progress: called after each step.
        watch: called after each step with the means of the epoch so far.
        log: takes the names of the images that were read, and of those left out.
        note: called with what the user should know about the file in `init`.

    Returns:
        The checkpoint's path.

    Raises:
        InputError: settings, data or weights that cannot be used; a run already in `out_dir`; a resume with other
            settings; a loss that is not finite.
        MissingError: no such device, no network for pretrained weights, not enough memory.
    """
    return _Run(settings, config, out_dir, pretrained, init, resume, progress, watch, log or ImageLog(), note).go()


@dataclass
class _Run:
    """One call of `train`: its arguments, its parts, and its progress."""

    settings: TrainSettings
    config: ToFeConfig
    out_dir: Path
    pretrained: bool
    init: Path | None
    resume: bool
    progress: Progress
    watch: Watch
    log: ImageLog
    note: Note

    def __post_init__(self) -> None:
        self.device = setup.choose_device(self.settings.device)
        self.train_source = setup.open_labelled(self.settings, "train")
        self.val_source = setup.open_labelled(self.settings, "val")
        if self.val_source.classes != self.train_source.classes:
            raise InputError(
                f"{self.train_source.name} and {self.val_source.name} do not have the same classes.",
                "Make them equal.",
                code="classes-differ",
            )
        self.config = setup.with_classes(self.config, self.train_source)
        self.start = {"pretrained": self.pretrained, "init": None if self.init is None else str(self.init)}
        self.state = self._saved_state()
        fresh = self.state is None
        # A resumed run takes its weights from its own state: neither the network nor the file is needed again.
        self.model = setup.build_network(
            self.settings, self.config, fresh and self.pretrained, self.init if fresh else None, self.note
        ).to(self.device)
        self.preprocessing = setup.preprocessing_for(self.settings.data, self.model.vit)
        self.metrics: list[dict[str, Any]] = [] if self.state is None else self.state.metrics
        self.last: Evaluation | None = None

    def go(self) -> Path:
        phases = [("dense", self.settings.dense_epochs), ("tofe", self.settings.epochs)]
        dense_done = self.state is not None and self.state.phase == "tofe"
        if dense_done or self.pretrained or self.init is not None or not self.settings.dense_epochs:
            del phases[0]
        if self.state is not None:
            with self._taken_from_state():
                self.model.load_state_dict(dict(self.state.model))
        write_metrics(self.out_dir, self.metrics)
        for name, epochs in phases:
            self._run_phase(name, epochs)
            self.state = None  # the next phase starts with a fresh optimizer
        return self._finish()

    def _run_phase(self, name: str, epochs: int) -> None:
        optimizer = setup.build_optimizer(self.model, self.settings, name)
        teacher = copy.deepcopy(self.model.vit).eval().requires_grad_(False) if name == "tofe" else None
        done = 0
        if self.state is not None:
            done = self.state.epochs_done
            with self._taken_from_state():
                optimizer.load_state_dict(self.state.optimizer)
                if teacher is not None:
                    teacher.load_state_dict(dict(self.state.teacher))
        phase = Phase(name, epochs, self.model, teacher, optimizer, self.settings, self.device)
        for epoch in range(done, epochs):
            self.metrics.append(self._run_epoch(phase, epoch))
            self._save(phase, epoch + 1)

    def _run_epoch(self, phase: Phase, epoch: int) -> dict[str, Any]:
        settings = self.settings
        # One seed for everything random in an epoch: nothing else needs to be saved for an exact resume.
        mixed = np.random.SeedSequence((settings.seed, 0 if phase.name == "dense" else 1, epoch))
        seed = int(mixed.generate_state(1)[0])
        torch.manual_seed(seed)
        source = self.train_source.at_epoch(seed)  # each phase has its own pictures
        limit = None if settings.limit_batches is None else settings.limit_batches * settings.batch_size
        transform = self.preprocessing.train_transform(augment=settings.data != "digits")
        loader = batches(source, transform, settings.batch_size, limit, seed, self.log, settings.workers)
        images = len(source) if limit is None else min(limit, len(source))
        entry = run_epoch(phase, epoch, loader, -(-images // settings.batch_size), self.progress, self.watch)
        self.last = self._evaluate(phase.name)
        return {**entry, **vars(self.last)}

    def _evaluate(self, phase: str) -> Evaluation:
        size, limit, workers = self.settings.batch_size, self.settings.limit_val, self.settings.workers
        loader = batches(self.val_source, self.preprocessing, size, limit, log=self.log, workers=workers)
        return evaluate(self.model, phase == "dense", loader, self.device)

    def _save(self, phase: Phase, epochs_done: int) -> None:
        save_state(
            self.out_dir,
            RunState(
                settings=dataclasses.asdict(self.settings),
                start=self.start,
                config=self.model.config.to_dict(),
                phase=phase.name,
                epochs_done=epochs_done,
                model=self.model.state_dict(),
                teacher={} if phase.teacher is None else phase.teacher.state_dict(),
                optimizer=phase.optimizer.state_dict(),
                metrics=self.metrics,
            ),
        )

    @contextlib.contextmanager
    def _taken_from_state(self) -> Iterator[None]:
        """Whatever PyTorch finds wrong with weights or an optimizer of the state means that it is damaged."""
        try:
            yield
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
            raise damaged(self.out_dir) from error

    def _saved_state(self) -> RunState | None:
        state = load_state(self.out_dir) if self.resume else None
        if state is None:
            if not self.resume and (self.out_dir / STATE).exists():
                raise InputError(
                    f"{self.out_dir} already holds a run.",
                    "Continue it with `resume`, or choose another folder.",
                    code="run-exists",
                    path=self.out_dir,
                )
            if (self.out_dir / CHECKPOINT).exists():  # a new run's log would lie beside it until it is replaced
                raise InputError(
                    f"{self.out_dir} holds the {CHECKPOINT} of a finished run, and no {STATE} to continue from.",
                    "Choose another folder.",
                    code="run-finished",
                    path=self.out_dir,
                )
            return None
        changed = [
            *_differences(state.settings, dataclasses.asdict(self.settings)),
            *_differences(state.start, self.start),
            *_differences(vars(ToFeConfig.from_dict(state.config)), vars(self.config)),
        ]
        if changed:
            raise InputError(
                f"The run in {self.out_dir} was started with other settings: {'; '.join(changed)}.",
                "Resume with the same settings, or start another run in another folder.",
                code="resumed-with-other-settings",
                path=self.out_dir,
                changes=tuple(changed),
            )
        return state

    def _finish(self) -> Path:
        last = self.last or self._evaluate("tofe")  # resumed after its last epoch
        trained = checkpoint.Checkpoint(
            model=self.model.to("cpu").eval(),
            # A stage that keeps nothing on average still runs with one token when exported.
            keep_ratios=tuple(max(ratio, 1 / self.model.tokens) for ratio in last.keep_mean),
            preprocessing=self.preprocessing,
            metrics={key: value for key, value in self.metrics[-1].items() if isinstance(value, (int, float, list))},
            data=readable(self.settings.data),
            classes=self.train_source.classes,
        )
        checkpoint.save(self.out_dir / CHECKPOINT, trained)
        return self.out_dir / CHECKPOINT


def _differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What a saved run was started with and this one is not, as phrases."""
    return [
        f"{name} was {saved.get(name)} and is now {now.get(name)}"
        for name in sorted({*saved, *now} - _FREE_TO_CHANGE, key=str)
        if saved.get(name) != now.get(name) and (name != "stage_starts" or now.get(name))  # empty, they were filled in
    ]
