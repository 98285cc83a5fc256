"""From a checkpoint to keep counts that meet a goal on this machine, with the front they were chosen from."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tofe_export.api.bench import require_timing
from tofe_export.api.load import Source, load
from tofe_export.artifacts.file_kinds import Kind
from tofe_export.artifacts.outputs import Output, require_outputs
from tofe_export.bounds import MOST_IMAGES, require_within
from tofe_export.checkpoints.checkpoint import Checkpoint
from tofe_export.data.sources import images_like_training
from tofe_export.documents.fields import Target
from tofe_export.documents.machine import processors
from tofe_export.documents.tuning import TuneSettings, Tuning, unfinished_path
from tofe_export.errors import CheckFailedError, InputError
from tofe_export.files.names import readable
from tofe_export.files.places import is_stream
from tofe_export.graph.targets import require_target
from tofe_export.parity.provenance import weights_not_finite
from tofe_export.progress import Progress, silent
from tofe_export.timing.dense import Place
from tofe_export.tuning.run import TuningRun

_LARGEST_MS, _LARGEST_SPEEDUP = 1e6, 1e3


def tune(
    checkpoint: Source,
    path: Path | str | None = None,
    *,
    latency_ms: float | None = None,
    speedup: float | None = None,
    macs: float | None = None,
    target: Target = "onnxruntime",
    batch: int = 1,
    data: str | Path | None = None,
    samples: int = 256,
    rounds: int = 8,
    processes: int = 3,
    threads: int | None = None,
    progress: Progress = silent,
) -> Tuning:
    """Measures what tokens cost and what they give, and picks keep counts for a goal.

    Latency is timed for a few keep counts and fitted to the staircase of one matrix product. The network's own ranking
    of tokens says which counts are worth trying; those are judged on images, exported, and timed beside the dense
    backbone in fresh processes.

    Args:
        checkpoint: from `load`, or its file, or the folder of its training run.
        path: where the result is written, ending in .json; None writes nothing. Until it is finished it lies in
            `PATH.unfinished`: the same call goes on where a run was stopped, and an earlier result stays till then.
        latency_ms, speedup, macs: the goal, exactly one: the latency of a call in milliseconds, how many times faster
            than the dense backbone in the same form, or the share of its multiply-accumulates.
        target: the runtime, as in `optimize`.
        batch: images of a call.
        data: images to judge by: "digits", "photos" or a folder; None takes what the checkpoint was trained on, or
            bundled photos.
        samples: at most this many of them.
        rounds, processes: of the timing, as in `bench`.
        threads: None means every processor of this process.
        progress: called with what is being done, steps done, steps in all.

    Raises:
        InputError: no goal or several, a number out of range, a checkpoint without stages, a path that must not or
            cannot be written, or see `open_source`.
        CheckFailedError: a weight or the scores of an image are not finite.
        MissingError: the runtime is missing, or the disk is full.
    """
    loaded = checkpoint if isinstance(checkpoint, Checkpoint) else load(checkpoint)
    written = None if path is None else Path(path)
    _require_goal(latency_ms, speedup, macs)
    _require_numbers(batch, samples, rounds, processes, threads)
    if written is not None:
        require_place(written, loaded.path)
    _require_tunable(loaded, target)
    images = images_like_training(loaded.data, None if data is None else str(data))
    settings = TuneSettings(
        target=target,
        batch=batch,
        threads=threads or processors(),
        processes=processes,
        rounds=rounds,
        data=readable(images.name),
        samples=samples,
        latency_ms=latency_ms,
        speedup=speedup,
        macs=macs,
    )
    with tempfile.TemporaryDirectory(prefix="tofe-tune-") as folder:
        place = Place(Path(folder), settings.threads, progress)
        run = TuningRun(loaded, images, settings, written, place, progress)
        run.measure_latency()
        run.judge_candidates()
        run.time_candidates()
        run.choose()
    return run.document


def require_place(path: Path, checkpoint: Path | None) -> None:
    """Raises InputError where a result of a checkpoint could not be written to `path`, or not be read from there."""
    if path.suffix != ".json":  # by which an export tells it from a folder of images
        raise InputError(
            f"{readable(path)} does not end in .json.", "Name a file that does.", code="not-json-name", path=path
        )
    if is_stream(path):
        raise InputError(
            f"{readable(path)} is not a regular file, which is required here.",
            "Name a file to write.",
            code="not-regular",
            path=path,
        )
    require_outputs([Output(path, Kind.TUNING), Output(unfinished_path(path), Kind.TUNING)], [checkpoint])


def _require_goal(latency_ms: float | None, speedup: float | None, macs: float | None) -> None:
    if sum(goal is not None for goal in (latency_ms, speedup, macs)) != 1:
        raise InputError(
            "A tuning has exactly one goal.", "Give one of `latency_ms`, `speedup` and `macs`.", code="one-goal"
        )
    if latency_ms is not None:
        require_within("latency_ms", latency_ms, 1e-3, _LARGEST_MS)
    if speedup is not None:
        require_within("speedup", speedup, 1e-3, _LARGEST_SPEEDUP)
    if macs is not None:
        require_within("macs", macs, 1e-3, 1)


def _require_numbers(batch: int, samples: int, rounds: int, processes: int, threads: int | None) -> None:
    require_timing((batch,), rounds, processes, threads)
    require_within("samples", samples, 1, MOST_IMAGES)


def _require_tunable(checkpoint: Checkpoint, target: str) -> None:
    if not checkpoint.model.stages:
        raise InputError(
            "This network is dense: it has no stages, so there are no keep counts to tune.",
            "Train a ToFe network from it, or prune it as EViT does.",
            code="keep-of-dense",
        )
    if broken := weights_not_finite(checkpoint):
        raise CheckFailedError(
            broken, "Use an earlier checkpoint of the run; the training of this one diverged.", code="weights"
        )
    require_target(target)
