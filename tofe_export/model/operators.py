"""The two operators of the exported graph, in PyTorch (ONNX domain `tofe`, version 1).

Eagerly they are a stable sort, row gathers and a scatter. While `torch.onnx.export` traces, each emits its one node
instead; `tofe_export.graph.functions` attaches the bodies in standard operators. While `torch.export` traces for a
runtime on a phone, which sorts and scatters in its own way or not at all, tokens are ranked by counting.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

DOMAIN = "tofe"
VERSION = 1
PARTITION = "TokenPartition"
REARRANGE = "ScatterRearrange"
_PLUGIN = {"plugin_namespace": DOMAIN, "plugin_version": str(VERSION)}


def rank_tokens(scores: Float[Tensor, "B N"]) -> Int[Tensor, "B N"]:
    """Token indices by rank: higher score first, the lower index first among equals, NaN as -infinity.

    Returns:
        int32 [B, N]; every row is a permutation of 0..N-1 whatever the scores are.
    """
    ordered = scores.float().masked_fill(scores.isnan(), float("-inf"))
    if torch.compiler.is_exporting():
        return _inverse(_ranks(ordered))
    return ordered.sort(dim=1, descending=True, stable=True).indices.int()


def token_partition(
    tokens: Shaped[Tensor, "B L C"], scores: Float[Tensor, "B N"], keep: int, prefix: int
) -> tuple[Shaped[Tensor, "B K C"], Shaped[Tensor, "B F C"], Int[Tensor, "B N"]]:
    """Splits the N patch tokens into the `keep` best, by their float32 scores, and the rest.

    The P = `prefix` leading tokens are never frozen and go first among the kept. `keep` is 0..N.

    Returns:
        kept [B, P+keep, C], frozen [B, N-keep, C], perm int32 [B, N] (index of the token of each rank).
    """
    if torch.onnx.is_in_onnx_export():
        batch, count = scores.shape
        width = tokens.shape[2]
        kept, frozen, perm = torch.onnx.ops.symbolic_multi_out(
            f"{DOMAIN}::{PARTITION}",
            (tokens, scores),
            {"keep": keep, "prefix": prefix, **_PLUGIN},
            dtypes=(tokens.dtype, tokens.dtype, torch.int32),
            shapes=((batch, prefix + keep, width), (batch, count - keep, width), (batch, count)),
            version=VERSION,
        )
        return kept, frozen, perm
    perm = rank_tokens(scores)
    kept, frozen = split_by(tokens, perm, keep, prefix)
    return kept, frozen, perm


def split_by(
    tokens: Shaped[Tensor, "B L C"], perm: Int[Tensor, "B N"], keep: int, prefix: int
) -> tuple[Shaped[Tensor, "B K C"], Shaped[Tensor, "B F C"]]:
    """`token_partition` with the permutation given instead of computed (eager only)."""
    rows = tokens[:, prefix:].gather(1, perm.long().unsqueeze(-1).expand(-1, -1, tokens.shape[2]))
    return torch.cat([tokens[:, :prefix], rows[:, :keep]], dim=1), rows[:, keep:]


def scatter_rearrange(
    kept: Shaped[Tensor, "B K C"], frozen: Shaped[Tensor, "B F C"], perm: Int[Tensor, "B N"], prefix: int
) -> Shaped[Tensor, "B L C"]:
    """Puts kept [B, P+K, C] and frozen tokens [B, F, C] back in the order `token_partition` found them in.

    `perm` is int32 [B, K+F], from there.

    Returns:
        [B, P+K+F, C] with out[b, P + perm[b, r]] = concat(kept[b, P:], frozen[b])[r].
    """
    if torch.onnx.is_in_onnx_export():
        tokens: Tensor = torch.onnx.ops.symbolic(
            f"{DOMAIN}::{REARRANGE}",
            (kept, frozen, perm),
            {"prefix": prefix, **_PLUGIN},
            dtype=kept.dtype,
            shape=(kept.shape[0], kept.shape[1] + frozen.shape[1], kept.shape[2]),
            version=VERSION,
        )
        return tokens
    ranked = torch.cat([kept[:, prefix:], frozen], dim=1)
    if torch.compiler.is_exporting():
        back = _inverse(perm).long().unsqueeze(-1).expand_as(ranked)
        return torch.cat([kept[:, :prefix], ranked.gather(1, back)], dim=1)
    places = perm.long().unsqueeze(-1).expand_as(ranked)
    return torch.cat([kept[:, :prefix], torch.empty_like(ranked).scatter(1, places, ranked)], dim=1)


def _ranks(scores: Float[Tensor, "B N"]) -> Int[Tensor, "B N"]:
    """The rank of each token, int32: how many score higher, or the same at a lower index."""
    places = _places(scores.shape[1], scores.device)
    own, other = scores.unsqueeze(2), scores.unsqueeze(1)
    before = (other > own) | ((other == own) & (places < places.unsqueeze(1)))
    return before.int().sum(dim=2, dtype=torch.int32)


def _inverse(order: Int[Tensor, "B N"]) -> Int[Tensor, "B N"]:
    """The inverse of permutations, int32, without a scatter."""
    places = _places(order.shape[1], order.device)
    there = (order.unsqueeze(1) == places.unsqueeze(1)).int()
    return (there * places).sum(dim=2, dtype=torch.int32)


def _places(count: int, device: torch.device) -> Int[Tensor, " N"]:
    return torch.arange(count, dtype=torch.int32, device=device)
