"""The ToFe network over a timm backbone, and its three paths (DESIGN section 2; arXiv 2507.16260).

* masked (training): dense and differentiable, hard masks as attention biases;
* threshold: each image keeps the tokens whose score is > 0, the reference for accuracy;
* fixed: a constant keep count per stage, the path that is exported.

The last two are one piece of code: the threshold path is the fixed path of a single image with its own counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from tofe_export.errors import InputError
from tofe_export.model import backbones
from tofe_export.model.approximator import DISCARD, build_approximator
from tofe_export.model.config import ToFeConfig, check_stage_starts
from tofe_export.model.selector import build_selector, keep_scores
from tofe_export.model.stage import Stage, StageTrace

Choose = Callable[[int, Tensor], Tensor]
"""(stage index, keep/freeze logits [B, N, 2]) -> mask [B, N] of 0.0 and 1.0."""


@dataclass(frozen=True)
class MaskedOutput:
    """What the masked path returns.

    Attributes:
        logits: [B, classes].
        masks: per stage [B, N], 1.0 where the token went through the blocks.
        estimates: per stage that brings frozen tokens back, the approximator's output [B, N, C].
    """

    logits: Tensor
    masks: list[Tensor]
    estimates: list[Tensor]


@dataclass(frozen=True)
class SparseOutput:
    """Logits [B, classes] and one trace per partitioned stage."""

    logits: Tensor
    stages: list[StageTrace]


class ToFe(nn.Module):
    """Token freezing and reusing around a backbone's own blocks.

    Args:
        vit: the backbone; its blocks are used as they are.
        config: stages, selector and approximator. `stage_starts` left empty is filled in `self.config`.

    Raises:
        InputError: the configuration does not fit the backbone.
    """

    def __init__(self, vit: VisionTransformer, config: ToFeConfig) -> None:
        super().__init__()
        starts = check_stage_starts(config.stage_starts, len(vit.blocks))
        self.config = ToFeConfig(config.backbone, config.backbone_args, starts, config.selector, config.approximator)
        self.vit = vit
        self.prefix = int(vit.num_prefix_tokens)
        self.tokens = int(vit.patch_embed.num_patches)
        self.prefix_head = backbones.head_reads_prefix_only(vit)
        self.discards = config.approximator == DISCARD
        if self.discards and not self.prefix_head:
            raise InputError(
                f"{config.backbone}'s head reads every token, so none can be discarded.",
                "Use the bottleneck approximator.",
            )
        dim, heads = int(vit.embed_dim), int(vit.blocks[0].attn.num_heads)
        last = len(starts) - 1
        self.stages = nn.ModuleList(
            Stage(
                index=index,
                selector=build_selector(config.selector, dim, heads),
                # Frozen tokens that nobody will read need no estimate.
                approximator=None
                if self.discards or (self.prefix_head and index == last)
                else build_approximator(config.approximator, dim, vit.blocks[start]),
                prefix=self.prefix,
                cut=self.prefix_head and index == last,
            )
            for index, start in enumerate(starts)
        )

    @property
    def stage_blocks(self) -> list[range]:
        """Block indices of each stage."""
        starts = self.config.stage_starts
        return [range(a, b) for a, b in zip(starts, [*starts[1:], len(self.vit.blocks)], strict=True)]

    def forward(self, images: Float[Tensor, "B D H W"]) -> Float[Tensor, "B classes"]:
        """Logits: the masked path with Gumbel noise while training, the threshold path otherwise."""
        if self.training:
            return self.forward_masked(images, gumbel_choice(1.0)).logits
        return torch.cat([single.logits for single in self.forward_threshold(images)])

    def forward_masked(self, images: Float[Tensor, "B D H W"], choose: Choose) -> MaskedOutput:
        """The dense path: every token through every block, frozen tokens invisible as attention keys.

        Args:
            images: float [B, D, H, W].
            choose: turns a stage's logits into its mask; `gumbel_choice` or `threshold_choice`.
        """
        x = self._before_stages(images)
        alive: Tensor | None = None
        masks: list[Tensor] = []
        estimates: list[Tensor] = []
        for stage, blocks in self._stages():
            mask = choose(stage.index, stage.selector.logits(x, self.prefix, alive))
            if self.discards:
                mask = mask if alive is None else mask * alive
                alive = mask
            x, estimate = stage.masked(x, blocks, mask)
            masks.append(mask)
            if estimate is not None:
                estimates.append(estimate)
        if self.prefix_head:
            x = x[:, : self.prefix]
        return MaskedOutput(backbones.classify(self.vit, x), masks, estimates)

    @torch.no_grad()
    def forward_threshold(self, images: Float[Tensor, "B D H W"]) -> list[SparseOutput]:
        """Each image alone, with its own counts (score > 0): one `SparseOutput` of batch 1 per image."""
        return [self._sparse(image.unsqueeze(0), None, True, {}) for image in images]

    def forward_fixed(
        self,
        images: Float[Tensor, "B D H W"],
        keep: Sequence[int],
        rearrange: bool = True,
        selection: Mapping[int, Tensor] | None = None,
    ) -> SparseOutput:
        """The path that is exported: `keep[s]` tokens go through stage s.

        Args:
            images: float [B, D, H, W].
            keep: one count per stage; see `check_keep`.
            rearrange: put tokens back in spatial order after each stage; otherwise elide, which is exact.
            selection: stage -> perm int [B, n] to use instead of the selector's own (for verification).
        """
        return self._sparse(images, check_keep(keep, self), rearrange, selection or {})

    def _sparse(
        self, images: Tensor, keep: Sequence[int] | None, rearrange: bool, selection: Mapping[int, Tensor]
    ) -> SparseOutput:
        x = self._before_stages(images)
        traces: list[StageTrace] = []
        for stage, blocks in self._stages():
            count = None if keep is None else keep[stage.index]
            x, trace = stage(x, blocks, count, rearrange, selection.get(stage.index))
            if trace is not None:
                traces.append(trace)
        return SparseOutput(backbones.classify(self.vit, x), traces)

    def _before_stages(self, images: Tensor) -> Tensor:
        first = self.config.stage_starts[0]
        return backbones.run_blocks(self.vit.blocks[:first], backbones.embed(self.vit, images))

    def _stages(self) -> Iterator[tuple[Stage, list[nn.Module]]]:
        for stage, indices in zip(self.stages, self.stage_blocks, strict=True):
            assert isinstance(stage, Stage)
            yield stage, [self.vit.blocks[index] for index in indices]


def gumbel_choice(temperature: float, noise: float = 1.0) -> Choose:
    """Straight-through Gumbel-Softmax: hard 0/1 forward, soft gradients (Jang et al., arXiv 1611.01144).

    Args:
        temperature: of the softmax that the gradients see.
        noise: scale of the Gumbel noise. With 0 the mask is the threshold path's own (score > 0), gradients still
            flowing: a training that ends there has met its budget on the path that will be used, where ending on
            noisy masks leaves the two apart by all tokens whose score is near 0.
    """

    def choose(stage: int, logits: Tensor) -> Tensor:
        wide = logits.float()
        if noise > 0:
            gumbel = -torch.empty_like(wide).exponential_().clamp(min=torch.finfo(wide.dtype).tiny).log()
            wide = wide + noise * gumbel
        soft = F.softmax(wide / temperature, dim=-1)[..., 0]
        hard = (wide[..., 0] > wide[..., 1]).to(soft.dtype)
        return hard + (soft - soft.detach())

    return choose


def threshold_choice(stage: int, logits: Tensor) -> Tensor:
    """The threshold path's rule, score > 0, as a mask for the dense path: what evaluation in batches uses."""
    return (keep_scores(logits) > 0).float()


def check_keep(keep: Sequence[int], model: ToFe) -> tuple[int, ...]:
    """The keep counts themselves, checked against the model.

    Raises:
        InputError: wrong number of counts, a count outside 1..N, or a rise where tokens are discarded.
    """
    counts, stages = tuple(keep), len(model.stages)
    given = ",".join(map(str, counts))
    if len(counts) != stages:
        example = ",".join(str(max(1, model.tokens >> (stage + 1))) for stage in range(stages))
        raise InputError(
            f"{len(counts)} keep counts were given ({given}), but the model has {stages} stages.",
            f"Give {stages} numbers, such as --keep {example}.",
        )
    for stage, count in enumerate(counts):
        if not 1 <= count <= model.tokens:
            raise InputError(
                f"Keep count {count} of stage {stage} is outside 1..{model.tokens}.",
                f"An image of this model has {model.tokens} patch tokens.",
            )
        if model.discards and stage and count > counts[stage - 1]:
            raise InputError(
                f"Keep counts {given} rise at stage {stage}, but this model discards tokens, so they are gone.",
                "Give counts that fall or stay.",
            )
    return counts


def build_tofe(config: ToFeConfig, pretrained: bool = False) -> ToFe:
    """The network that `config` describes, with fresh weights or timm's pretrained backbone.

    Raises:
        InputError, MissingError: see `create_backbone` and `ToFe`.
    """
    return ToFe(backbones.create_backbone(config.backbone, config.backbone_args, pretrained), config)
