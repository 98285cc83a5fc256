"""Training a ToFe network: the dense backbone first where it has no weights or no classifier, then ToFe with the dense
weights as its teacher. A run that was stopped goes on exactly where its saved state ends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tofe_export.checkpoints import checkpoint
from tofe_export.data.image_log import ImageLog
from tofe_export.data.images import training_batches
from tofe_export.data.sources import DIGITS
from tofe_export.documents.history import DENSE, TOFE
from tofe_export.documents.history import Phase as Name
from tofe_export.documents.training_recipe import TrainingRecipe
from tofe_export.errors import StoppedError, count
from tofe_export.files.names import CHECKPOINT, STATE, readable
from tofe_export.model.families import Backbone
from tofe_export.progress import Note, Progress, silent, unheard
from tofe_export.training import budget, recorder, setup, sharing
from tofe_export.training.loop import EpochSums, Evaluation, StepTimes, Watch, run_epoch, unwatched
from tofe_export.training.measuring import Measuring
from tofe_export.training.optimizer import require_optimizer
from tofe_export.training.phase import Phase, frozen_copy
from tofe_export.training.processes import Processes, joined
from tofe_export.training.recipe import config_of
from tofe_export.training.resume import data_of, require_free, require_same, saved_state, start_of
from tofe_export.training.run import Outcome, RunOptions
from tofe_export.training.seeds import seed_of
from tofe_export.training.state import RunState, damaged, save_state, write_metrics
from tofe_export.training.stopping import Stopping
from tofe_export.training.trackers import require_trackers


def train(
    recipe: TrainingRecipe,
    options: RunOptions,
    out_dir: Path,
    resume: bool = False,
    progress: Progress = silent,
    watch: Watch = unwatched,
    log: ImageLog | None = None,
    note: Note = unheard,
) -> Outcome:
    """Trains, and writes `out_dir`/ckpt.pth, beside it state.pt (for resuming), metrics.jsonl (a line an epoch) and
    steps.jsonl (a line every few seconds).

    Of several processes that torchrun started, each calls it alike; the first one writes.

    Args:
        recipe: what to train, and how; `num_classes` is filled in from the data.
        options: from what, and where.
        out_dir: the run's folder, created when missing.
        resume: continue the run in `out_dir`; with no state saved yet, start it.
        progress: called after each step.
        watch: called after each step with the means of the epoch so far.
        log: takes the names of the images that were read, and of those left out.
        note: called with what the user should know about the first weights and the result.

    Raises:
        InputError: settings, data or weights that cannot be used; a run already in `out_dir`; a resume with other
            settings; a budget that cannot be met; a loss that is not finite.
        MissingError: no such device or package, no network for pretrained weights, not enough memory; another process
            of the run has ended.
        StoppedError: Ctrl-C or SIGTERM; the state is saved.
    """
    device = setup.choose_device(options.device)
    with joined(device) as processes:
        run = _Run(recipe, options, out_dir, resume, device, processes, log or ImageLog(), note)
        return run.go(progress, watch)


@dataclass
class _Run:
    """One call of `train`: its arguments, its parts, and its progress."""

    recipe: TrainingRecipe
    options: RunOptions
    out_dir: Path
    resume: bool
    device: torch.device
    processes: Processes
    log: ImageLog
    note: Note

    def __post_init__(self) -> None:
        recipe, options = self.recipe, self.options
        self.stopping = Stopping(self.note)
        # What needs no image comes first: to list a large folder takes minutes.
        config = config_of(recipe)
        setup.require_trainable(config)
        setup.require_divisible(recipe, self.processes.size)
        require_optimizer(recipe.optimizer.name)
        require_trackers(options.trackers)
        require_free(self.out_dir, self.resume)
        self.train_source, self.val_source = setup.open_labelled(options.data, recipe.run.seed)
        config = setup.with_classes(config, self.train_source)
        self.state = saved_state(self.out_dir, self.resume, recipe, options, config, self.train_source)
        require_same(self.processes.gathered(None if self.state is None else self.state.place), self.out_dir)
        self.fresh = self.state is None
        if self.resume and self.fresh:
            self.note(f"{self.out_dir} has no {STATE} to continue from, so the run starts at the beginning.")
        # A resumed run takes its weights from its own state: neither the network nor the file is needed again.
        init = options.init if self.fresh else None
        self.model, classifies = setup.build_network(recipe, config, self.fresh and options.pretrained, init, self.note)
        budget.require_reachable(self.model, recipe.tofe.budget)
        self.model.to(self.device)
        self.preprocessing = setup.preprocessing_for(options.data, self.model.vit)
        self.measuring = Measuring(
            *(recipe.run, self.train_source, self.val_source, self.preprocessing, options.workers),
            *(self.device, self.processes, self.log),
        )
        augmented = None if options.data == DIGITS else recipe.images  # their source augments them itself
        if augmented is None and (said := setup.note_of_digits(recipe.images)):
            self.note(said)
        self.transform = self.preprocessing.train_transform(augmented)
        self.metrics: list[dict[str, Any]] = [] if self.state is None else self.state.metrics
        taught = self.state.phase == TOFE if self.state is not None else classifies or not recipe.dense.epochs
        if self.fresh and (options.init or options.pretrained) and not classifies:
            self.note(_without_classifier(recipe))
        self.phases: list[Name] = [TOFE] if taught else [DENSE, TOFE]
        self.dense_accuracy = None if self.state is None else self.state.dense_accuracy
        self.last: Evaluation | None = None
        self.begun = False

    def go(self, progress: Progress, watch: Watch) -> Outcome:
        """All phases, or what is left of them, and the checkpoint."""
        if self.state is not None:
            with self._taken_from_state():
                self.model.load_state_dict(dict(self.state.model))
        folder = self.out_dir if self.processes.first else None
        with recorder.recording(folder, self.options, self.recipe, not self.fresh, self.note) as self.recorder:
            *before, last = self.phases
            for name in before:
                self._run_phase(name, progress, watch)  # and forgets it: its optimizer takes memory
            return self._finish(self._run_phase(last, progress, watch))

    def _run_phase(self, name: Name, progress: Progress, watch: Watch) -> Phase:
        teacher = self._teacher() if name == TOFE else None
        steps = self.recipe.steps_per_epoch(len(self.train_source))
        phase = Phase(name, self.recipe, self.model, teacher, steps, self.device, self.processes)
        self.recorder.begin(phase, steps * sum(entry["phase"] != name for entry in self.metrics))
        done, sums = 0, EpochSums()
        if self.state is not None:
            done, sums = self.state.epochs_done, EpochSums(**self.state.epoch)
            with self._taken_from_state():
                phase.restore(self.state.optimizer)
        with self.stopping.listening():
            for epoch in range(done, phase.epochs):
                self.metrics.append(self._run_epoch(phase, epoch, sums, progress, watch))
                sums = EpochSums()
                self._save(phase, epoch + 1, sums)
                if number := self._agreed(False)[1]:
                    raise self._stopped(number, f"epoch {epoch + 1} of the {phase.name} phase")
        if name == DENSE:
            self.model = phase.result
            setup.copy_blocks(self.model)
        self.state = None  # the next phase starts with a fresh optimizer
        return phase

    def _teacher(self) -> Backbone:
        teacher = frozen_copy(self.model.vit)
        if self.state is not None and self.state.phase == TOFE:
            with self._taken_from_state():
                teacher.load_state_dict(dict(self.state.teacher))
        if self.dense_accuracy is None:
            self.dense_accuracy = (self.last or self.measuring.evaluation(self.model, True)).val_accuracy
        return teacher

    def _run_epoch(self, phase: Phase, epoch: int, sums: EpochSums, progress: Progress, watch: Watch) -> dict[str, Any]:
        seed = seed_of(self.recipe.run.seed, phase.name, epoch)
        loader = training_batches(
            self.train_source.at_epoch(seed),  # each phase has its own pictures
            self.transform,
            phase.chunks(sums.steps),
            seed,
            self.recipe.images.repeats,
            self.log,
            self.options.workers,
            pin_memory=self.device.type == "cuda",
        )
        saved = time.monotonic()

        def after_step(sums: EpochSums, times: StepTimes) -> None:
            nonlocal saved
            self._begin_files()
            self.recorder.step(phase, epoch, sums, times)
            due = time.monotonic() - saved > 60 * self.options.save_minutes
            saving, number = self._agreed(due and sums.steps < phase.steps)
            if saving or number:
                self._save(phase, epoch, sums)
                saved = time.monotonic()
            if number:
                steps = count(sums.steps, "step")
                raise self._stopped(number, f"{steps} of epoch {epoch + 1} of the {phase.name} phase")

        entry = run_epoch(phase, epoch, sums, loader, progress, self.recorder.watched(watch), after_step)
        self.last = self.measuring.evaluation(phase.result, phase.name == DENSE)
        return {**entry, **vars(self.last)}

    def _agreed(self, due: bool) -> tuple[bool, int]:
        return self.stopping.agreed(due, self.processes, self.device)

    def _stopped(self, number: int, after: str) -> StoppedError:
        """Once the first process has saved the state: torchrun ends all of them when one has ended."""
        self.processes.gathered(None)
        return StoppedError(
            f"Stopped after {after}; the state is saved in {self.out_dir}.",
            "Continue with `resume`.",
            number=number,
            code="stopped",
            path=self.out_dir,
        )

    def _begin_files(self) -> None:
        """The log of what was done before, when the first step is made: a run that is refused leaves no file."""
        if self.processes.first and not self.begun:
            write_metrics(self.out_dir, self.metrics)
        self.begun = True

    def _save(self, phase: Phase, epochs_done: int, sums: EpochSums) -> None:
        # Weights that are sharded come from all processes.
        weights, kept = sharing.whole_weights(self.model), phase.saved()
        if not self.processes.first:
            return
        save_state(
            self.out_dir,
            RunState(
                recipe=self.recipe.to_dict(),
                start=start_of(self.options),
                config=self.model.config.to_dict(),
                data=data_of(self.train_source),
                phase=phase.name,
                epochs_done=epochs_done,
                epoch=vars(sums),
                model=weights,
                teacher={} if phase.teacher is None else phase.teacher.state_dict(),
                optimizer=kept,
                dense_accuracy=self.dense_accuracy if phase.name == TOFE else None,
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

    def _finish(self, phase: Phase) -> Outcome:
        recipe, model = self.recipe, phase.result
        self._begin_files()
        kept = budget.set_thresholds(model, phase.steering.wanted(1.0), lambda: self.measuring.scores(model))
        last = self.measuring.evaluation(model, False)
        for other in self.processes.gathered(self.log)[1:]:
            self.log.merge(other)
        assert self.dense_accuracy is not None  # the second phase measured it
        notes = budget.budget_notes(model, recipe.tofe.budget, last.macs_ratio, last.keep_mean)
        trained = checkpoint.Checkpoint(
            model=model.to("cpu").eval(),
            # A stage that keeps nothing on average still runs with one token when exported.
            keep_ratios=tuple(max(ratio, 1 / model.tokens) for ratio in kept),
            preprocessing=self.preprocessing,
            metrics={
                **{key: value for key, value in self.metrics[-1].items() if isinstance(value, (int, float, list))},
                **vars(last),
                "dense_accuracy": self.dense_accuracy,
                "macs_budget": recipe.tofe.budget,
            },
            data=readable(self.options.data),
            classes=self.train_source.classes,
        )
        path = self.out_dir / CHECKPOINT
        if self.processes.first:
            checkpoint.save(path, trained)
        return Outcome(path, last, self.dense_accuracy, recipe.tofe.budget, tuple(notes))


def _without_classifier(recipe: TrainingRecipe) -> str:
    """What it means that the first weights came without a classifier for these classes."""
    fact = "The first weights have no classifier for these classes"
    if recipe.dense.epochs:
        return f"{fact}, so this run trains its own first, for {count(recipe.dense.epochs, 'dense epoch')}."
    return f"{fact} and no dense epoch is to train one, so the teacher's answers are random."
