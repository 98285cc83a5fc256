"""Training a ToFe network: the dense backbone first where it has no weights, then ToFe with the dense weights as
its teacher. A killed run continues exactly where its last whole epoch ended."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tofe_export.checkpoints import checkpoint
from tofe_export.data.image_log import ImageLog
from tofe_export.data.images import ImageSource, batches
from tofe_export.errors import InputError
from tofe_export.files.names import CHECKPOINT, STATE, readable
from tofe_export.model.config import ToFeConfig
from tofe_export.model.tofe import ToFe
from tofe_export.progress import Progress, silent
from tofe_export.training import setup
from tofe_export.training.evaluation import Evaluation, evaluate_dense, evaluate_tofe
from tofe_export.training.loop import Phase, run_epoch
from tofe_export.training.progress import Watch, unwatched
from tofe_export.training.settings import TrainSettings
from tofe_export.training.state import RunState, damaged, load_state, save_state, write_metrics


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

    Returns:
        The checkpoint's path.

    Raises:
        InputError: settings, data or weights that cannot be used; a run already in `out_dir`; a resume with other
            settings; a loss that is not finite.
        MissingError: no such device, no network for pretrained weights, not enough memory.
    """
    return _Run(settings, config, out_dir, pretrained, init, resume, progress, watch, log or ImageLog()).go()


class _Run:
    """One call of `train`: its parts, and its progress."""

    def __init__(
        self,
        settings: TrainSettings,
        config: ToFeConfig,
        out_dir: Path,
        pretrained: bool,
        init: Path | None,
        resume: bool,
        progress: Progress,
        watch: Watch,
        log: ImageLog,
    ) -> None:
        self.settings, self.out_dir, self.log = settings, out_dir, log
        self.progress, self.watch = progress, watch
        self.device = setup.choose_device(settings.device)
        self.train_source = setup.open_labelled(settings, "train")
        self.val_source = setup.open_labelled(settings, "val")
        if self.val_source.classes != self.train_source.classes:
            raise InputError(
                f"{self.train_source.name} and {self.val_source.name} do not have the same class folders.",
                "Make them equal.",
                code="classes-differ",
            )
        config = setup.with_classes(config, self.train_source)
        self.start = {"pretrained": pretrained, "init": None if init is None else str(init)}
        self.state = self._saved_state(config, resume)
        fresh = self.state is None
        # A resumed run takes its weights from its own state: neither the network nor the file is needed again.
        self.model, ready = setup.build_network(settings, config, fresh and pretrained, init if fresh else None)
        self.phases = list(setup.phases(settings, ready or pretrained or init is not None))
        self.model.to(self.device)
        self.preprocessing = setup.preprocessing_for(settings.data, self.model.vit)
        self.metrics: list[dict[str, Any]] = [] if self.state is None else self.state.metrics
        self.last = Evaluation(0, 0.0)

    def go(self) -> Path:
        names = [name for name, _ in self.phases]
        first = 0 if self.state is None else names.index(self.state.phase)
        if self.state is not None:
            with self._taken_from_state():
                self.model.load_state_dict(dict(self.state.model))
        write_metrics(self.out_dir, self.metrics)
        for name, epochs in self.phases[first:]:
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
        seed = setup.seed_for(self.settings, phase.name, epoch)
        torch.manual_seed(seed)
        source: ImageSource = self.train_source.at_epoch(seed)  # each phase has its own pictures
        limit = None if self.settings.limit_batches is None else self.settings.limit_batches * self.settings.batch_size
        transform = self.preprocessing.train_transform(augment=self.settings.data != "digits")
        loader = batches(source, transform, self.settings.batch_size, limit, seed, self.log, self.settings.workers)
        images = len(source) if limit is None else min(limit, len(source))
        steps = -(-images // self.settings.batch_size)
        entry = run_epoch(phase, epoch, loader, steps, self.progress, self.watch)
        self.last = self._evaluate(phase.name)
        return {**entry, **_evaluation_entry(self.last)}

    def _evaluate(self, phase: str) -> Evaluation:
        loader = batches(
            self.val_source,
            self.preprocessing,
            self.settings.batch_size,
            self.settings.limit_val,
            log=self.log,
            workers=self.settings.workers,
        )
        return (evaluate_dense if phase == "dense" else evaluate_tofe)(self.model, loader, self.device)

    def _save(self, phase: Phase, epochs_done: int) -> None:
        save_state(
            self.out_dir,
            RunState(
                settings=self.settings.to_dict(),
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

    def _saved_state(self, config: ToFeConfig, resume: bool) -> RunState | None:
        state = load_state(self.out_dir) if resume else None
        if state is None:
            if not resume and (self.out_dir / STATE).exists():
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
        changed = self.settings.differences(state.settings) + _differences(state.start, self.start)
        changed += _config_differences(ToFeConfig.from_dict(state.config), config)
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
        if not self.last.images:  # resumed after its last epoch
            self.last = self._evaluate("tofe")
        path = self.out_dir / CHECKPOINT
        # A stage that keeps nothing on average still runs with one token when exported.
        ratios = tuple(max(ratio, 1 / self.model.tokens) for ratio in self.last.keep_mean)
        trained = checkpoint.Checkpoint(
            model=_on_cpu(self.model),
            keep_ratios=ratios,
            preprocessing=self.preprocessing,
            metrics={key: value for key, value in self.metrics[-1].items() if isinstance(value, (int, float, list))},
            data=readable(self.settings.data),
            classes=self.train_source.classes,
        )
        checkpoint.save(path, trained)
        return path


def _evaluation_entry(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "val_accuracy": evaluation.accuracy,
        "keep_mean": list(evaluation.keep_mean),
        "keep_std": list(evaluation.keep_std),
        "macs_ratio": evaluation.macs_ratio,
    }


def _differences(saved: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [
        f"{name} was {saved.get(name)} and is now {given}" for name, given in now.items() if saved.get(name) != given
    ]


def _config_differences(saved: ToFeConfig, now: ToFeConfig) -> list[str]:
    differences = []
    for field in dataclasses.fields(ToFeConfig):
        was, given = getattr(saved, field.name), getattr(now, field.name)
        filled_in = field.name == "stage_starts" and not given
        if was != given and not filled_in:
            differences.append(f"{field.name} was {was} and is now {given}")
    return differences


def _on_cpu(model: ToFe) -> ToFe:
    return model.to("cpu").eval()
