"""The ToFe network over a timm backbone, and its three paths (DESIGN section 2; arXiv 2507.16260).

* masked (training): dense and differentiable, hard masks as attention biases;
* threshold: each image keeps the tokens whose score is > 0, the reference for accuracy;
* fixed: a constant keep count per stage, the path that is exported.

The last two are one piece of code: the threshold path is the fixed path of a single image with its own counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tofe_export.errors import InputError
from tofe_export.model import backbones
from tofe_export.model.approximator import BLOCK, DISCARD, FUSE, build_approximator
from tofe_export.model.blocks import Recomputed, Step, run_steps
from tofe_export.model.config import ToFeConfig, stage_starts_of
from tofe_export.model.families import Backbone
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.lvvit import LVViT
from tofe_export.model.operators import scatter_rearrange
from tofe_export.model.outputs import MaskedOutput, SparseOutput, StageTrace
from tofe_export.model.positions import Positions, need_places, positions_of
from tofe_export.model.selector import (
    CLS_ATTENTION,
    Choose,
    build_selector,
    gumbel_choice,
    keep_scores,
)
from tofe_export.model.stage import Stage, Steps


class ToFe(nn.Module):
    """Token freezing and reusing around a backbone's own blocks, which are used as they are.

    Empty `stage_starts` are filled in `self.config`.

    Raises:
        InputError: the configuration does not fit the backbone.
    """

    def __init__(self, vit: Backbone, config: ToFeConfig) -> None:
        super().__init__()
        starts = stage_starts_of(config, len(vit.blocks))
        self.config = replace(config, stage_starts=starts)
        self.vit = vit
        self.prefix = int(vit.num_prefix_tokens)
        self.tokens = int(vit.patch_embed.num_patches)
        self.prefix_head = backbones.head_reads_prefix_only(vit)
        self.fuses = config.approximator == FUSE
        self.discards = self.fuses or config.approximator == DISCARD
        self._check(config)
        dim = int(vit.embed_dim)
        # Frozen tokens that nobody will read need no estimate.
        unread = len(starts) - 1 if self.prefix_head and not config.dense_output else None
        self.stages = nn.ModuleList(
            Stage(
                index=index,
                selector=build_selector(config.selector, dim, backbones.heads(vit.blocks[start])),
                approximator=None
                if self.discards or index == unread
                else build_approximator(config.approximator, dim, vit.blocks[start]),
                prefix=self.prefix,
                fuse=self.fuses,
            )
            for index, start in enumerate(starts)
        )

    def _check(self, config: ToFeConfig) -> None:
        if not self.tokens:
            raise InputError(
                f"{config.backbone} cannot be built with {dict(config.backbone_args)}: "
                "its patches are larger than its images.",
                "Correct `backbone_args`.",
                code="backbone-args",
                name=config.backbone,
            )
        # LV-ViT's head takes a maximum over the tokens there are, so it means the same with fewer.
        if self.discards and not (self.prefix_head or isinstance(self.vit, LVViT)):
            raise InputError(
                f"{config.backbone}'s head reads every token, so none can be discarded.",
                "Use the bottleneck approximator.",
                code="head-reads-every-token",
                backbone=config.backbone,
            )
        if config.approximator == BLOCK and need_places(self.vit):
            raise InputError(
                f"The blocks of {config.backbone} read where tokens lie, so none can serve as an approximator.",
                "Use the bottleneck approximator.",
                code="block-needs-places",
                backbone=config.backbone,
            )
        if config.selector == CLS_ATTENTION and not (self.prefix and backbones.has_attention_weights(self.vit)):
            raise InputError(
                f"{config.backbone} shows no attention of a CLS token, which the selector {CLS_ATTENTION} needs.",
                "Use the mlp selector.",
                code="no-attention-of-cls",
                backbone=config.backbone,
            )

    @property
    def stage_blocks(self) -> list[range]:
        """Block indices of each stage."""
        starts = self.config.stage_starts
        return [range(a, b) for a, b in zip(starts, [*starts[1:], len(self.vit.blocks)], strict=False)]

    @property
    def has_threshold(self) -> bool:
        """Whether a score above 0 means "keep"; attention weights only rank tokens."""
        return self.config.selector != CLS_ATTENTION

    def arriving(self, keep: Sequence[int]) -> list[int]:
        """How many patch tokens arrive at each stage, and after them how many are left at the end.

        All N of them, unless tokens are discarded; a fused token counts as one.
        """
        counts = [self.tokens]
        for count in keep:
            gone = self.discards and count < counts[-1]
            counts.append(count + int(self.fuses) if gone else counts[-1])
        return counts

    def set_image_size(self, height: int, width: int) -> None:
        """Makes the network take other images, its position embedding resized as timm does.

        Raises:
            InputError: the patches do not fit in.
        """
        rows, columns = self.vit.patch_embed.patch_size
        if min(height, width) < 1 or height % rows or width % columns:
            fitting = f"{max(1, height // rows) * rows}x{max(1, width // columns) * columns}"
            raise InputError(
                f"Images of {height} x {width} pixels cannot be cut into patches of {rows} x {columns}.",
                f"Give multiples, such as {fitting}: `image_size`, or img_size in `backbone_args`.",
                code="image-size",
                size=(height, width),
                fitting=fitting,
            )
        self.vit.set_input_size(img_size=(height, width))
        self.tokens = int(self.vit.patch_embed.num_patches)
        self.config = replace(self.config, backbone_args={**self.config.backbone_args, "img_size": [height, width]})

    def forward(self, images: Float[Tensor, "B D H W"]) -> Float[Tensor, "B classes"]:
        """Logits: the masked path with Gumbel noise while training, the threshold path otherwise."""
        if self.training:
            return self.forward_masked(images, gumbel_choice(1.0)).logits
        return torch.cat([single.logits for single in self.forward_threshold(images)])

    def forward_masked(self, images: Float[Tensor, "B D H W"], choose: Choose) -> MaskedOutput:
        """The dense path: every token through every block, but for rows of the last that nobody reads; frozen tokens
        are invisible as attention keys.

        `choose` turns a stage's logits into its mask: `gumbel_choice` or `threshold_choice`. Gradients of masks end at
        the selectors. The slope of a frozen key's mask is its attention over that of all kept keys, which has no bound:
        where few are kept, what masks would have the backbone learn drowns everything else. Nor does an earlier
        selector learn from what its mask hides from later ones.

        Raises:
            InputError: the selector has no logits to choose by.
        """
        self._require_logits()
        positions = positions_of(self.vit)
        x = self._before_stages(images, positions)
        read_all = self.config.dense_output
        alive: Tensor | None = None
        masks: list[Tensor] = []
        estimates: list[Tensor] = []
        scores: list[Tensor] = []
        for stage, steps in self._stages(positions):
            assert stage.selector is not None
            logits = stage.selector.logits(x.detach(), self.prefix, None if alive is None else alive.detach())
            there = keep_scores(logits.detach())
            scores.append(there if alive is None else there.masked_fill(alive < 0.5, -torch.inf))
            mask = choose(stage.index, logits)
            if self.discards:
                mask = mask if alive is None else mask * alive
                alive = mask
            x, estimate = stage.masked(x, steps, mask, self._cut(stage, read_all))
            masks.append(mask)
            if estimate is not None:
                estimates.append(estimate)
        normed = self.vit.norm(x)
        features = normed[:, self.prefix :] if read_all else None
        return MaskedOutput(backbones.classify(self.vit, normed, alive), masks, estimates, scores, features)

    @torch.no_grad()
    def forward_threshold(self, images: Float[Tensor, "B D H W"]) -> list[SparseOutput]:
        """Each image alone, with its own counts (score > 0): one `SparseOutput` of batch 1 per image.

        Raises:
            InputError: the selector's scores have no threshold.
        """
        self._require_logits()
        return [self._sparse(image.unsqueeze(0), None, True, {}, False) for image in images]

    def forward_fixed(self, images: Float[Tensor, "B D H W"], path: FixedPath) -> SparseOutput:
        """The path that is exported: `path.keep[s]` tokens go through stage s.

        With features and elide, tokens are put back once, at the end, for permutations compose. Where the last stage
        has no approximator (a classifier trained for its logits alone), the features of its frozen tokens are those
        that stage found.

        Raises:
            InputError: counts that do not fit, or features of a network that discards tokens.
        """
        if path.features:
            check_features(self)
        keep = check_keep(path.keep, self)
        return self._sparse(images, keep, path.rearranged, path.selection, path.features)

    def _sparse(
        self,
        images: Tensor,
        keep: Sequence[int] | None,
        rearrange: bool,
        selection: Mapping[int, Tensor],
        features: bool,
    ) -> SparseOutput:
        positions = positions_of(self.vit)
        x = self._before_stages(images, positions)
        choosing = [] if keep is None else [i for i, count in enumerate(keep) if count != self.arriving(keep)[i]]
        places: Tensor | None = None  # in the image, while tokens are left by rank
        traces: list[StageTrace] = []
        for stage, steps in self._stages(positions):
            cut = self._cut(stage, features)
            if keep is not None and stage.index not in choosing:
                x = stage.run(steps(places), x, cut)
                continue
            count = None if keep is None else keep[stage.index]
            chosen = selection.get(stage.index)
            kept, frozen, scores, perm, ranked = stage(x, places, steps, count, chosen, cut)
            if self.discards or cut:
                x = kept
                places = None if self.fuses else ranked[:, : perm.shape[1] - frozen.shape[1]]
            elif rearrange or (features and stage.index == choosing[-1]):
                x, places = scatter_rearrange(kept, frozen, ranked, self.prefix), None
            else:
                x, places = torch.cat([kept, frozen], 1), ranked
            traces.append(StageTrace(stage.index, scores, perm, x))
        normed = self.vit.norm(x)
        logits = backbones.classify(self.vit, normed)
        return SparseOutput(logits, traces, normed[:, self.prefix :] if features else None)

    def _cut(self, stage: Stage, read_all: bool) -> bool:
        """Whether only prefix rows are read after a stage: the head's, unless features of every token are wanted."""
        return stage.index == len(self.stages) - 1 and self.prefix_head and not read_all

    def _require_logits(self) -> None:
        if not self.has_threshold:
            raise InputError(
                f"The selector {CLS_ATTENTION} ranks tokens but has no threshold, so it can neither be trained to a "
                "budget nor choose a number of tokens for each image.",
                "Give the numbers: `keep`, or `keep_rate`.",
                code="no-threshold",
            )

    def _before_stages(self, images: Tensor, positions: Positions) -> Tensor:
        first = next(iter(self.config.stage_starts), len(self.vit.blocks))
        return run_steps(self._steps(positions, range(first), None), backbones.embed(self.vit, images))

    def _stages(self, positions: Positions) -> Iterator[tuple[Stage, Steps]]:
        for stage, indices in zip(self.stages, self.stage_blocks, strict=True):
            assert isinstance(stage, Stage)
            yield stage, partial(self._steps, positions, indices)

    def _steps(self, positions: Positions, indices: range, places: Tensor | None) -> list[Step]:
        """The blocks; timm's `set_grad_checkpointing` makes them compute again what their gradients need."""
        steps = positions.steps(indices, places)
        again = torch.is_grad_enabled() and getattr(self.vit, "grad_checkpointing", False)
        return [Recomputed(step) for step in steps] if again else steps


def check_keep(keep: Sequence[int], model: ToFe) -> tuple[int, ...]:
    """The keep counts themselves, checked against the model.

    Raises:
        InputError: wrong number of counts, a count outside 1..N, or a rise where tokens are discarded.
    """
    counts, stages = tuple(keep), len(model.stages)
    if not stages:
        if counts:
            raise InputError(
                "This network is dense: it has no stages and keeps every token.", "Omit `keep`.", code="keep-of-dense"
            )
        return counts
    given = ",".join(map(str, counts))
    if len(counts) != stages:
        example = tuple(max(1, model.tokens >> (stage + 1)) for stage in range(stages))
        raise InputError(
            f"{len(counts)} keep counts were given ({given}), but the model has {stages} stages.",
            f"Give {stages} numbers, such as `keep={example}`.",
            code="keep-length",
            keep=counts,
            stages=stages,
        )
    for stage, count in enumerate(counts):
        if not 1 <= count <= model.tokens:
            raise InputError(
                f"Keep count {count} of stage {stage} is outside 1..{model.tokens}.",
                f"An image of this model has {model.tokens} patch tokens.",
                code="keep-range",
                stage=stage,
                count=count,
                tokens=model.tokens,
            )
        if model.discards and count > model.arriving(counts[:stage])[-1]:
            raise InputError(
                f"Keep counts {given} rise at stage {stage}, but this model discards tokens, so they are gone.",
                "Give counts that fall or stay.",
                code="keep-rises",
                stage=stage,
            )
    return counts


def check_features(model: ToFe) -> None:
    """Raises InputError where not every token has a feature at the end."""
    if model.discards:
        raise InputError(
            f"This network discards tokens ({model.config.approximator}), so there are no features of every token.",
            "Export its logits, or train a ToFe network with an approximator.",
            code="no-features",
            approximator=model.config.approximator,
        )


def build_tofe(config: ToFeConfig, pretrained: bool = False) -> ToFe:
    """The network that `config` describes, with fresh weights or timm's pretrained backbone.

    Raises:
        InputError, MissingError: see `create_backbone` and `ToFe`.
    """
    return ToFe(backbones.create_backbone(config.backbone, config.backbone_args, pretrained), config)
