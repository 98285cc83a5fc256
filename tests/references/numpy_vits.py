"""Forward passes of DeiT and LV-ViT, whole, with DynamicViT's selections and with EViT's, in float64 NumPy."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tests.references.numpy_layers import (
    Array,
    Weights,
    attention,
    batch_norm,
    conv,
    gelu,
    layer_norm,
    linear,
    log_softmax,
    mlp,
)
from tests.references.weights import PATCH, Backbone, Case

PREDICTOR_NORM_EPS = 1e-5  # DynamicViT's predictor keeps this one on DeiT too, whose own is 1e-6


@dataclass
class Run:
    """What a forward pass gives; the lists have one entry per selection."""

    logits: Array
    kept: list[int] = field(default_factory=list)  # without CLS and without a fused token
    margins: list[float] = field(default_factory=list)  # the batch's smallest gap at the cut
    spreads: list[float] = field(default_factory=list)  # standard deviation of the scores, to judge the gap by


def run_case(case: Case, weights: Weights, images: Array) -> Run:
    """Run a case's method on its images."""
    sizes = case.sizes
    x = embed(weights, sizes, images)
    run = Run(logits=np.empty(0))
    for index in range(sizes.depth):
        stage = sizes.selects_at.index(index) if index in sizes.selects_at else None
        if case.method == "dynamicvit" and stage is not None:
            x = select_by_predictor(case, weights, x, stage, run)
        x, probabilities = attend(weights, sizes, index, x)
        if case.method == "evit" and stage is not None:
            x = select_by_attention(case, x, probabilities, run)
        x = feed_forward(weights, sizes, index, x)
    run.logits = classify(weights, sizes, x)
    return run


def embed(weights: Weights, sizes: Backbone, images: Array) -> Array:
    """Images to the tokens of the first block: CLS, then the patches row by row, positions added."""
    if sizes.stem:
        patches = lvvit_patches(weights, images)
    else:
        patches = conv(weights, "patch_embed.proj", images, stride=PATCH, padding=0)
    batch, dim = patches.shape[:2]
    tokens = patches.reshape(batch, dim, -1).transpose(0, 2, 1)
    cls = np.broadcast_to(weights["cls_token"], (batch, 1, dim))
    return np.concatenate([cls, tokens], axis=1) + weights["pos_embed"]


def lvvit_patches(weights: Weights, images: Array) -> Array:
    """LV-ViT's stem: three convolutions at half the resolution, then patches of 8 × 8 of them."""
    x = images
    for number, (stride, padding) in enumerate([(2, 3), (1, 1), (1, 1)], start=1):
        x = conv(weights, f"patch_embed.conv{number}", x, stride, padding)
        x = np.maximum(batch_norm(weights, f"patch_embed.bn{number}", x), 0.0)
    return conv(weights, "patch_embed.proj", x, stride=PATCH // 2, padding=0)


def attend(weights: Weights, sizes: Backbone, index: int, x: Array) -> tuple[Array, Array]:
    """First half of a block; also gives the attention probabilities."""
    name = f"blocks.{index}"
    normed = layer_norm(weights, f"{name}.norm1", x, sizes.norm_eps)
    mixed, probabilities = attention(weights, f"{name}.attn", normed, sizes.heads)
    return x + mixed / sizes.skip_lam, probabilities


def feed_forward(weights: Weights, sizes: Backbone, index: int, x: Array) -> Array:
    """Second half of a block."""
    name = f"blocks.{index}"
    normed = layer_norm(weights, f"{name}.norm2", x, sizes.norm_eps)
    return x + mlp(weights, f"{name}.mlp", normed) / sizes.skip_lam


def classify(weights: Weights, sizes: Backbone, x: Array) -> Array:
    """Logits from CLS; in LV-ViT also from the strongest of the remaining tokens, class by class."""
    x = layer_norm(weights, "norm", x, sizes.norm_eps)
    logits = linear(weights, "head", x[:, 0])
    if sizes.stem:
        logits = logits + 0.5 * linear(weights, "aux_head", x[:, 1:]).max(axis=1)
    return logits


def cut(scores: Array, count: int, run: Run) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Split the tokens of every image into the `count` of highest score and the others; notes the margin."""
    order = np.argsort(-scores, axis=1, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=1)
    run.kept.append(count)
    run.margins.append(float((ranked[:, count - 1] - ranked[:, count]).min()))
    run.spreads.append(float(scores.std(axis=1).min()))
    return order[:, :count], order[:, count:]


def take(tokens: Array, indices: NDArray[np.intp]) -> Array:
    """Gather tokens [B, N, D] by [B, K]."""
    return np.take_along_axis(tokens, indices[:, :, None], axis=1)


def select_by_predictor(case: Case, weights: Weights, x: Array, stage: int, run: Run) -> Array:
    """DynamicViT, before a block: the predictor scores the tokens that are left, a set number of them stays."""
    assert case.rate is not None
    patches = (case.image_size // PATCH) ** 2
    count = int(patches * case.rate ** (stage + 1))  # of all patches, not of those left
    tokens = x[:, 1:]
    kept, _ = cut(predict(weights, f"score_predictor.{stage}", tokens), count, run)
    return np.concatenate([x[:, :1], take(tokens, kept)], axis=1)


def predict(weights: Weights, name: str, tokens: Array) -> Array:
    """Log-probability to keep each token, from half its features and the mean of everybody's other half."""
    normed = layer_norm(weights, f"{name}.in_conv.0", tokens, PREDICTOR_NORM_EPS)
    features = gelu(linear(weights, f"{name}.in_conv.1", normed))
    own, shared = np.split(features, 2, axis=-1)
    # Dropped tokens are gone by now, so the plain mean is the mean of those alive.
    everybody = np.broadcast_to(shared.mean(axis=1, keepdims=True), shared.shape)
    x = np.concatenate([own, everybody], axis=-1)
    x = gelu(linear(weights, f"{name}.out_conv.0", x))
    x = gelu(linear(weights, f"{name}.out_conv.2", x))
    return log_softmax(linear(weights, f"{name}.out_conv.4", x))[:, :, 0]


def select_by_attention(case: Case, x: Array, probabilities: Array, run: Run) -> Array:
    """EViT, between a block's halves: the tokens that CLS attends to most stay, the others may be fused."""
    assert case.rate is not None
    scores = probabilities[:, :, 0, 1:].mean(axis=1)
    tokens = x[:, 1:]  # an earlier fused token is one of them
    kept, dropped = cut(scores, math.ceil(case.rate * tokens.shape[1]), run)
    parts = [x[:, :1], take(tokens, kept)]
    if case.fuse:
        # The weights are CLS's probabilities as they are: they are not scaled to sum to one.
        shares = np.take_along_axis(scores, dropped, axis=1)
        parts.append((shares[:, :, None] * take(tokens, dropped)).sum(axis=1, keepdims=True))
    return np.concatenate(parts, axis=1)
