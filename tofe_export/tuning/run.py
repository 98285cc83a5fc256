"""A tuning from its first measurement to its pick, saved after each step so that one that was stopped goes on.

What is not finished lies in a file of its own: an earlier result stays until there is a new one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tofe_export.checkpoints.checkpoint import Checkpoint
from tofe_export.data.image_log import ImageLog
from tofe_export.data.images import ImageSource, batches
from tofe_export.data.sources import class_note
from tofe_export.documents.base import read_document
from tofe_export.documents.machine import describe_machine, describe_versions
from tofe_export.documents.manifest import FileIdentity
from tofe_export.documents.tuning import Probe, TunedCounts, TuneSettings, Tuning, unfinished_path
from tofe_export.errors import InputError
from tofe_export.files.names import readable
from tofe_export.files.writing import write_text
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.model.tofe import check_keep
from tofe_export.progress import Progress, tracked
from tofe_export.timing.blocks import Timings
from tofe_export.timing.dense import Place
from tofe_export.timing.intervals import speedup
from tofe_export.tuning.latency import fit, probe_counts
from tofe_export.tuning.probes import Keep, Probes
from tofe_export.tuning.quality import Judged, judge, rank_tokens_of
from tofe_export.tuning.search import finalists, meets, pick, stage_counts, with_front
from tofe_export.tuning.session import tune_session
from tofe_export.tuning.staircase import measure_staircase

_BATCH = 16
_FINALISTS = 8


class TuningRun:
    """Each step does what the document does not have yet.

    Args:
        checkpoint: the network.
        images: what keep counts are judged by.
        settings: with the goal.
        path: of the result; None keeps it in memory.
        place: for files that are timed.
        progress: called with what is being done, steps done, steps in all.

    Attributes:
        document: what is known so far.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        images: ImageSource,
        settings: TuneSettings,
        path: Path | None,
        place: Place,
        progress: Progress,
    ) -> None:
        self._checkpoint, self._model, self._source = checkpoint, checkpoint.model, images
        self._settings, self._path, self._progress = settings, path, progress
        self._unfinished = None if path is None else unfinished_path(path)
        self._probes = Probes(checkpoint.model, settings, place)
        self.document = _resumed(self._unfinished, checkpoint, settings) or _new(checkpoint, settings)

    def measure_latency(self) -> None:
        """The staircase of one product, and a few whole networks."""
        settings, model = self._settings, self._model
        if not self.document.staircase:
            width, how = int(model.vit.embed_dim), (settings.batch, settings.target, settings.threads)
            steps = measure_staircase(width, model.tokens, model.prefix, *how, self._progress)
            self._save(staircase=steps)
        if not self.document.probes:
            keeps = probe_counts(_base(self._checkpoint), model.tokens, model.discards)
            measured = self._probes.time(keeps, "Probing stages", self._progress)
            dense, *timed = [_median_ms(measured.of(place, settings.batch)) for place in range(len(keeps) + 1)]
            probes = tuple(Probe(keep=keep, ms=ms) for keep, ms in zip(keeps, timed, strict=True))
            self._save(dense_ms=dense, probes=probes)

    def judge_candidates(self) -> None:
        """What the network's ranking recommends, judged on images."""
        if self.document.candidates and all(one.agreement is not None for one in self.document.candidates):
            return
        images = self._images()
        if not self.document.candidates:
            self._save(lost=images.lost, candidates=self._finalists(images))
        for number, candidate in enumerate(self.document.candidates):
            if candidate.agreement is None:
                task = f"Judging {', '.join(map(str, candidate.keep))}"
                agreement, accuracy = judge(self._model, candidate.keep, images, task, self._progress)
                judged = candidate.replaced(agreement=agreement, accuracy=accuracy)
                others = self.document.candidates
                self._save(candidates=(*others[:number], judged, *others[number + 1 :]))

    def time_candidates(self) -> None:
        """All of them together, beside the dense backbone."""
        candidates, batch = self.document.candidates, self._settings.batch
        if all(one.ms is not None for one in candidates):
            return
        measured = self._probes.time([one.keep for one in candidates], "Timing candidates", self._progress)
        dense, timed = measured.of(0, batch), []
        for place, candidate in enumerate(candidates, start=1):
            own = measured.of(place, batch)
            ratio = speedup(dense, own)
            known = {"speedup": ratio.value, "speedup_low": ratio.low, "speedup_high": ratio.high}
            timed.append(candidate.replaced(ms=_median_ms(own), **known))
        self._save(candidates=with_front(timed), dense_ms=_median_ms(dense))

    def choose(self) -> None:
        """The pick, and the session parameters that suit it."""
        if not self.document.finished:
            best = pick(self.document.candidates, self._settings)
            session = tune_session(self._probes, best.keep, self._progress)
            self._save(keep=best.keep, reached=meets(best, self._settings), session=session, finished=True)

    def _images(self) -> Judged:
        log, limit = ImageLog(), self._settings.samples
        loop = batches(self._source, self._checkpoint.preprocessing, _BATCH, limit=limit, log=log)
        steps = -(-min(limit, len(self._source)) // _BATCH)
        labelled = not class_note(self._source, self._checkpoint.classes)
        images = rank_tokens_of(self._model, tracked(loop, "Ranking tokens", steps, self._progress), labelled)
        self._save(images=log.document())
        return images

    def _finalists(self, images: Judged) -> tuple[TunedCounts, ...]:
        document, dense = self.document, dense_macs(self._model.vit)
        assert document.dense_ms is not None

        def macs_ratio(keep: Sequence[int]) -> float:
            return tofe_macs(self._model, [float(count) for count in keep]) / dense

        return finalists(
            stage_counts(document.staircase, len(self._model.stages)),
            fit(document.probes, document.staircase),
            images.lost,
            self._model.discards,
            macs_ratio,
            self._settings,
            document.dense_ms,
            _FINALISTS,
        )

    def _save(self, **changes: object) -> None:
        self.document = self.document.replaced(**changes)
        if self._path is None or self._unfinished is None:
            return
        if not self.document.finished:
            write_text(self._unfinished, self.document.to_json())
            return
        write_text(self._path, self.document.to_json())
        with contextlib.suppress(OSError):  # it would only be resumed to choose again
            self._unfinished.unlink(missing_ok=True)


def _new(checkpoint: Checkpoint, settings: TuneSettings) -> Tuning:
    return Tuning(
        machine=describe_machine(),
        versions=describe_versions(),
        checkpoint=FileIdentity(
            file="checkpoint" if checkpoint.path is None else readable(checkpoint.path.name),
            sha256=checkpoint.file_sha256,
        ),
        weights_sha256=checkpoint.weights_sha256,
        config=checkpoint.model.config.document(),
        tokens=checkpoint.model.tokens,
        prefix=checkpoint.model.prefix,
        settings=settings,
    )


def _resumed(path: Path | None, checkpoint: Checkpoint, settings: TuneSettings) -> Tuning | None:
    """An unfinished tuning of the same network, with the same settings, on the same machine; None starts anew."""
    if path is None or not path.is_file():
        return None
    try:
        found = read_document(Tuning, path, "Tune from the start.")
        for keep in (*(one.keep for one in found.probes), *(one.keep for one in found.candidates)):
            check_keep(keep, checkpoint.model)
    except InputError:
        return None
    new = _new(checkpoint, settings)
    parts = ("settings", "weights_sha256", "config", "tokens", "prefix", "machine", "versions")
    same = all(getattr(found, part) == getattr(new, part) for part in parts)
    return found if same and not found.finished else None


def _base(checkpoint: Checkpoint) -> Keep:
    """Counts from which each stage is varied: those that the checkpoint knows, else halves of halves."""
    try:
        return tuple(checkpoint.keep_counts())
    except InputError:
        tokens = checkpoint.model.tokens
        return tuple(max(1, tokens >> (stage + 1)) for stage in range(len(checkpoint.model.stages)))


def _median_ms(timings: Sequence[Timings]) -> float:
    """Of the medians of all blocks of all processes."""
    return float(np.median(np.concatenate([one.medians_ms for one in timings])))
