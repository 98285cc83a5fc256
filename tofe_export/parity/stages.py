"""One stage of a deployed model against PyTorch: who was selected, how near a tie, and the tokens that came out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tofe_export.documents.verification import DivergingModule, Flips, StageDrift, StageNotFinite
from tofe_export.extremes import largest
from tofe_export.parity.metrics import NotFinite, finite
from tofe_export.parity.tokens import RowErrors, TokenDifference


@dataclass
class StageDifference:
    """Running difference of one stage.

    Attributes:
        index: stage number.
        kept: tokens that the reference kept, over all images.
        flipped: those of them that the deployed model did not keep, each model on its own selection in stages before.
        score_gap: by how much a kept token falls short of a frozen one, in the reference's scores.
        largest_score: of the reference, for scale.
        margins: of each token on which the choices of this stage alone differ, by how much its score would have to
            change to be chosen as the deployed model did; see `add_scores`.
        images_flipped: images with such a token.
        of_kept, of_frozen: errors of kept tokens (and prefix rows) and of frozen ones, under the same selection.
        largest: largest value of the reference's tokens, for scale.
        scores_not_finite, tokens_not_finite: the first image with such a value, on either side.
    """

    index: int
    kept: int = 0
    flipped: int = 0
    score_gap: float = 0.0
    largest_score: float = 0.0
    margins: list[float] = field(default_factory=list)
    images_flipped: int = 0
    of_kept: TokenDifference = field(default_factory=TokenDifference)
    of_frozen: TokenDifference = field(default_factory=TokenDifference)
    largest: float = 0.0
    scores_not_finite: NotFinite = field(default_factory=NotFinite)
    tokens_not_finite: NotFinite = field(default_factory=NotFinite)

    def add_selection(self, reference: Tensor, deployed: Tensor) -> None:
        """Adds two selections, bool [B, N] in spatial order."""
        self.kept += int(reference.sum())
        self.flipped += int((reference & ~deployed).sum())

    def add_scores(
        self, reference: Tensor, perm: Tensor, keep: int, deployed: Tensor | None = None, names: Sequence[str] = ()
    ) -> None:
        """Adds the reference's scores [B, n] of the tokens that the deployed model ranked by `perm` [B, n].

        The gap is how far the least of its `keep` first lies below the greatest of the rest: 0 for the same choice,
        tiny for a near-tie. The margin of a token that only the reference keeps is its score less the (keep+1)-th
        best; of one that only the deployed model keeps, the keep-th best less its score. The deployed model's own
        scores, where it shows them, must be finite; by how much they differ its choice tells.
        """
        self.scores_not_finite.add(reference, deployed, names)
        scores = reference.double().nan_to_num(nan=float("-inf"))
        ranked = scores.gather(1, perm.long())
        gap = _no_nan(ranked[:, keep:].amax(1) - ranked[:, :keep].amin(1))
        self.score_gap = largest(self.score_gap, float(gap.max()))
        self.largest_score = largest(self.largest_score, float(reference.abs().max()))
        best = scores.sort(dim=1, descending=True, stable=True)
        none = torch.zeros_like(perm, dtype=torch.bool)
        ours, theirs = (none.scatter(1, order[:, :keep], True) for order in (best.indices, perm.long()))
        lost, gained = ours & ~theirs, theirs & ~ours
        margin_lost = (scores - best.values[:, keep : keep + 1])[lost]
        margin_gained = (best.values[:, keep - 1 : keep] - scores)[gained]
        self.margins += _no_nan(torch.cat([margin_lost, margin_gained])).tolist()
        self.images_flipped += int(lost.any(dim=1).sum())

    def add_tokens(self, reference: Tensor, deployed: Tensor, frozen: Tensor, names: Sequence[str] = ()) -> None:
        """Adds the tokens [B, L, C] after the stage, both computed on the deployed model's selection.

        `frozen`, bool [B, L], names the rows of tokens that the stage froze.
        """
        self.tokens_not_finite.add(reference, deployed, names)
        rows = RowErrors.of(reference, deployed)
        self.largest = largest(self.largest, float(reference.abs().max()))
        self.of_kept.add(rows, ~frozen)
        self.of_frozen.add(rows, frozen)

    def merge(self, other: StageDifference) -> None:
        """Adds what another process found on other images."""
        self.kept += other.kept
        self.flipped += other.flipped
        self.score_gap = largest(self.score_gap, other.score_gap)
        self.largest_score = largest(self.largest_score, other.largest_score)
        self.margins += other.margins
        self.images_flipped += other.images_flipped
        self.of_kept.merge(other.of_kept)
        self.of_frozen.merge(other.of_frozen)
        self.largest = largest(self.largest, other.largest)
        self.scores_not_finite.merge(other.scores_not_finite)
        self.tokens_not_finite.merge(other.tokens_not_finite)

    @property
    def max_abs(self) -> float | None:
        """Largest difference of a token under the same selection; None before any was seen."""
        errors = [tokens.max_abs for tokens in (self.of_kept, self.of_frozen) if tokens.max_abs is not None]
        return largest(*errors) if errors else None

    def not_finite(self, reference: str) -> list[str]:
        """A sentence for each side, called `reference` and the deployed model, with a value that is not finite."""
        scores = self.scores_not_finite.problems(f"keep scores of stage {self.index}", reference)
        return scores + self.tokens_not_finite.problems(f"tokens of stage {self.index}", reference)

    @property
    def overlap(self) -> float:
        """Share of kept tokens that both models chose."""
        return 1 - self.flipped / self.kept if self.kept else 1.0

    def document(self, first_module: DivergingModule | None = None) -> StageDrift:
        """An entry of `stages` in verify.json."""
        return StageDrift(
            index=self.index,
            selection_overlap=self.overlap,
            score_gap=finite(self.score_gap),
            flips=Flips(
                tokens=len(self.margins),
                images=self.images_flipped,
                margin_median=finite(statistics.median(self.margins)) if self.margins else None,
                margin_max=finite(max(self.margins)) if self.margins else None,
            ),
            finite=self.max_abs is None or math.isfinite(self.max_abs),
            not_finite=StageNotFinite(
                scores=self.scores_not_finite.document(), tokens=self.tokens_not_finite.document()
            ),
            max_abs_same_selection=finite(self.max_abs),
            of_kept=self.of_kept.document(),
            of_frozen=self.of_frozen.document(),
            first_module=first_module,
        )


def _no_nan(values: Tensor) -> Tensor:
    """NaN counts as infinitely far."""
    return values.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
