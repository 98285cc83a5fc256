"""Where an exported model's keep counts come from: the user's hand, calibration images, or what training learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tofe_export.artifacts.names import readable
from tofe_export.checkpoints.checkpoint import Checkpoint
from tofe_export.checkpoints.keep_rates import counts_of_ratios
from tofe_export.data.image_log import ImageLog
from tofe_export.data.images import ImageSource, batches
from tofe_export.data.sources import is_ambiguous, open_source
from tofe_export.errors import CheckFailedError, InputError
from tofe_export.model.tofe import check_keep
from tofe_export.precision.recipe import read_recipe
from tofe_export.workflows.calibrate_model import require_images_of
from tofe_export.workflows.progress import Report, tracked

_SAMPLES = 1000
_QUANTILE = 0.5


@dataclass(frozen=True)
class KeepOptions:
    """Where keep counts come from.

    Attributes:
        counts: by hand, one a stage; None takes `ratios`, `source`, or what the checkpoint knows.
        source: images whose threshold-path counts give the keep counts, in the words of --data, or a calibration
            recipe (.toml), which names images, how many and the quantile.
        quantile: which quantile of those counts, 0..1; None takes the recipe's, else the median.
        samples: at most so many of those images; None takes the recipe's, else 1000.
        ratios: by hand as shares of the tokens, each in (0, 1].
    """

    counts: tuple[int, ...] | None = None
    source: str | None = None
    quantile: float | None = None
    samples: int | None = None
    ratios: tuple[float, ...] | None = None

    @property
    def by_hand(self) -> bool:
        """Whether the user gave counts or ratios."""
        return self.counts is not None or self.ratios is not None

    def described(self, checkpoint: Checkpoint) -> str:
        """For the manifest: "given", "learned", the method's keep rate, or which images and quantile."""
        if self.by_hand:
            return "given"
        if self.source:
            return _Images.chosen_by(self).described
        if not checkpoint.model.stages:
            return "dense"
        return "learned" if checkpoint.keep_rate is None else f"keep rate {checkpoint.keep_rate:g}"


@dataclass(frozen=True)
class _Images:
    """Images to count kept tokens on; with a seed they are drawn from the training part."""

    name: str
    samples: int
    seed: int | None
    quantile: float
    described: str

    @staticmethod
    def chosen_by(options: KeepOptions) -> _Images:
        assert options.source is not None
        if not options.source.endswith(".toml"):
            quantile = _QUANTILE if options.quantile is None else options.quantile
            described = f"{readable(options.source)} quantile {quantile}"
            return _Images(options.source, options.samples or _SAMPLES, None, quantile, described)
        recipe = read_recipe(options.source)
        require_images_of(recipe, "Give the images themselves: --keep-from FOLDER.")
        data = recipe.data
        quantile = recipe.keep.quantile if options.quantile is None else options.quantile
        described = f"{readable(data.source)} quantile {quantile}, recipe {readable(recipe.name)}"
        return _Images(data.source, options.samples or data.samples, data.seed, quantile, described)

    def open(self) -> ImageSource:
        return open_source(self.name, "any") if self.seed is None else open_source(self.name, "train", self.seed)


def choose_keep(checkpoint: Checkpoint, options: KeepOptions, log: ImageLog, report: Report) -> tuple[int, ...]:
    """Keep counts by hand, from images, or learned; see `KeepOptions`.

    Raises:
        InputError: both ways at once, counts that do not fit, or see `read_recipe` and `open_source`.
        CheckFailedError: an image's scores are not finite.
    """
    if options.quantile is not None and not 0 <= options.quantile <= 1:
        raise InputError(f"--keep-quantile {options.quantile} is not between 0 and 1.", "0.5 takes the median image.")
    if options.source is None and (options.quantile, options.samples) != (None, None):
        raise InputError(
            "--keep-quantile and --keep-samples choose from images, and none are named.", "Add --keep-from DATA."
        )
    if options.source is not None and not checkpoint.model.stages:
        raise InputError("This network is dense: it has no stages and keeps every token.", "Leave --keep-from away.")
    if options.by_hand and options.source is not None:
        raise InputError("--keep and --keep-from were both given.", "Give one of them.")
    if options.counts is not None:
        return check_keep(options.counts, checkpoint.model)
    if options.ratios is not None:
        return check_keep(counts_of_ratios(options.ratios, checkpoint.model.tokens), checkpoint.model)
    if options.source is None:
        return check_keep(checkpoint.keep_counts(), checkpoint.model)
    how = _Images.chosen_by(options)
    source = how.open()
    if how.seed is not None and is_ambiguous(how.name):
        log.note(f"{how.name} in the recipe is the bundled set; for the folder of that name write ./{how.name}.")
    loop = batches(source, checkpoint.preprocessing, 1, limit=how.samples, seed=how.seed, log=log)
    counts: list[list[int]] = []
    for batch in tracked(loop, "Counting kept tokens", min(len(source), how.samples), report):
        (single,) = checkpoint.model.forward_threshold(batch.images)
        if not all(trace.scores.isfinite().all() for trace in single.stages):
            raise CheckFailedError(
                f"The keep scores of {readable(batch.names[0])} are not finite, so its tokens cannot be counted.",
                "Leave that image out; if others do the same, look at the checkpoint's weights.",
            )
        counts.append([int((trace.scores > 0).sum()) for trace in single.stages])
    return check_keep(quantile_counts(counts, how.quantile), checkpoint.model)


def quantile_counts(counts: Sequence[Sequence[int]], quantile: float) -> tuple[int, ...]:
    """Per stage the quantile of the images' kept counts, rounded up, at least 1."""
    found = np.quantile(np.asarray(counts, dtype=np.float64), quantile, axis=0, method="linear")
    return tuple(max(1, int(np.ceil(value))) for value in found)
