"""Where an exported model's keep counts come from: the user, calibration images, or training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path

import numpy as np

from tofe_export.bounds import MOST_IMAGES, require_within
from tofe_export.checkpoints.checkpoint import Checkpoint
from tofe_export.checkpoints.keep_rates import counts_of_ratios
from tofe_export.data.image_log import ImageLog
from tofe_export.data.images import batches
from tofe_export.data.sources import is_ambiguous, open_source
from tofe_export.documents.base import read_document
from tofe_export.documents.onnx_options import SessionSettings
from tofe_export.documents.tuning import Tuning, unfinished_path
from tofe_export.errors import CheckFailedError, InputError, brief
from tofe_export.files.names import expanded, readable
from tofe_export.files.places import is_there
from tofe_export.model.tofe import check_keep
from tofe_export.precision.calibrated import require_images_of
from tofe_export.precision.recipe import read_recipe
from tofe_export.progress import Progress, silent, tracked


@dataclass(frozen=True)
class KeepCounts:
    """Keep counts, one per stage, in words where they come from, and session parameters that were tuned with them."""

    counts: tuple[int, ...]
    source: str
    session: SessionSettings = field(default_factory=SessionSettings)


def choose_keep(
    checkpoint: Checkpoint,
    keep: Sequence[float] | None = None,
    keep_from: str | Path | None = None,
    keep_quantile: float | None = None,
    keep_samples: int | None = None,
    log: ImageLog | None = None,
    progress: Progress = silent,
) -> KeepCounts:
    """Keep counts as the user gave them, from images, or as the checkpoint knows them.

    Args:
        checkpoint: the network.
        keep: one per stage: whole numbers are counts, and numbers with a fraction are shares of the tokens, each in
            (0, 1].
        keep_from: images whose counts on the threshold path give the keep counts, in the words of `data`, or a
            calibration recipe (.toml), which names images, their number and the quantile; or a result of `tune`
            (.json), which has the counts themselves.
        keep_quantile: which quantile of those counts, 0 to 1; None takes the recipe's, else the median.
        keep_samples: at most this many of those images; None takes the recipe's, else 1000.
        log: told which images were read.
        progress: called for each image that is counted.

    Raises:
        InputError: two sources at once, counts that do not fit, or see `read_recipe` and `open_source`.
        CheckFailedError: the scores of an image are not finite.
    """
    model = checkpoint.model
    if keep_quantile is not None and not 0 <= keep_quantile <= 1:
        raise InputError(
            f"`keep_quantile` {keep_quantile} is not between 0 and 1.",
            "0.5 takes the median image.",
            code="keep-quantile-range",
        )
    require_within("keep_samples", 1 if keep_samples is None else keep_samples, 1, MOST_IMAGES)
    if keep_from is None and (keep_quantile, keep_samples) != (None, None):
        raise InputError(
            "`keep_quantile` and `keep_samples` choose from images, and none are named.",
            "Add `keep_from=DATA`.",
            code="keep-without-images",
        )
    if keep_from is not None and not model.stages:
        raise InputError(
            "This network is dense: it has no stages and keeps every token.", "Omit `keep_from`.", code="keep-of-dense"
        )
    if keep is not None and keep_from is not None:
        raise InputError("`keep` and `keep_from` were both given.", "Give one of them.", code="keep-conflict")
    if keep is not None:
        return KeepCounts(check_keep(counts_of(keep, model.tokens), model), "given")
    if keep_from is not None and str(keep_from).endswith(".json"):
        if (keep_quantile, keep_samples) != (None, None):
            raise InputError(
                "`keep_quantile` and `keep_samples` choose from images, and a tuning has the counts themselves.",
                "Omit them.",
                code="keep-without-images",
            )
        return _from_tuning(checkpoint, expanded(str(keep_from)))
    if keep_from is not None:
        return _from_images(checkpoint, str(keep_from), keep_quantile, keep_samples, log or ImageLog(), progress)
    learned = "learned" if checkpoint.keep_rate is None else f"keep rate {checkpoint.keep_rate:g}"
    return KeepCounts(check_keep(checkpoint.keep_counts(), model), learned if model.stages else "dense")


def counts_of(keep: Sequence[float], tokens: int) -> tuple[int, ...]:
    """Keep counts, where `keep` are counts or shares of the tokens.

    Raises:
        InputError: some of both, or a share outside (0, 1].
    """
    whole = [isinstance(value, Integral) for value in keep]
    if all(whole):
        return tuple(int(value) for value in keep)
    if any(whole) or not all(0 < value <= 1 for value in keep):
        raise InputError(
            f"`keep` is {brief(tuple(keep))}, which are neither counts nor shares of the tokens.",
            "Give counts (96, 49, 27), or shares above 0 and at most 1.0 (0.49, 0.25, 0.14).",
            code="keep-mixed",
        )
    return counts_of_ratios(keep, tokens)


def quantile_counts(counts: Sequence[Sequence[int]], quantile: float) -> tuple[int, ...]:
    """Per stage the quantile of the images' kept counts, rounded up, at least 1."""
    quantiles = np.quantile(np.asarray(counts, dtype=np.float64), quantile, axis=0, method="linear")
    return tuple(max(1, int(np.ceil(value))) for value in quantiles)


def _from_tuning(checkpoint: Checkpoint, path: Path) -> KeepCounts:
    stopped = InputError(
        f"{path} is of a tuning that was stopped.",
        "Tune with the same arguments to go on.",
        code="not-finished",
        path=path,
    )
    if not is_there(path) and is_there(unfinished_path(path)):
        raise stopped
    tuning = read_document(Tuning, path, "Tune again.")
    if not tuning.finished:
        raise stopped
    if tuning.weights_sha256 != checkpoint.weights_sha256:
        raise InputError(
            f"{path} was made for other weights, those of {tuning.checkpoint.file}.",
            "Tune this checkpoint.",
            code="tuning-of-another",
            path=path,
        )
    if tuning.config not in (None, checkpoint.model.config.document()):
        raise InputError(
            f"{path} was made for these weights in another network: with other stages, say, or for other images.",
            "Tune this checkpoint, or describe it as it was described then.",
            code="tuning-of-another-network",
            path=path,
        )
    session = SessionSettings() if tuning.session is None else tuning.session
    return KeepCounts(check_keep(tuning.keep, checkpoint.model), f"tuned, {readable(path.name)}", session)


def _from_images(
    checkpoint: Checkpoint, name: str, quantile: float | None, samples: int | None, log: ImageLog, progress: Progress
) -> KeepCounts:
    seed, by_recipe, usual_samples, usual_quantile = None, "", 1000, 0.5
    if name.endswith(".toml"):
        recipe = read_recipe(name)
        require_images_of(recipe, "keep_from")
        name, seed, by_recipe = recipe.data.source, recipe.data.seed, f", recipe {recipe.name}"
        usual_samples, usual_quantile = recipe.data.samples, recipe.keep.quantile
        if is_ambiguous(name):
            log.note(f"{name} in the recipe is the bundled set; for the folder of that name write ./{name}.")
    samples = usual_samples if samples is None else samples
    quantile = usual_quantile if quantile is None else quantile
    source = open_source(name, "any") if seed is None else open_source(name, "train", seed)
    counts: list[list[int]] = []
    loop = batches(source, checkpoint.preprocessing, 1, limit=samples, seed=seed, log=log)
    for batch in tracked(loop, "Counting kept tokens", min(len(source), samples), progress):
        (single,) = checkpoint.model.forward_threshold(batch.images)
        if not all(trace.scores.isfinite().all() for trace in single.stages):
            image = readable(batch.names[0])
            raise CheckFailedError(
                f"The keep scores of {image} are not finite, so its tokens cannot be counted.",
                "Omit that image; if others do the same, check the checkpoint's weights.",
                code="scores-not-finite",
                image=image,
            )
        counts.append([int((trace.scores > 0).sum()) for trace in single.stages])
    chosen = check_keep(quantile_counts(counts, quantile), checkpoint.model)
    return KeepCounts(chosen, f"{readable(name)} quantile {quantile}{by_recipe}")
