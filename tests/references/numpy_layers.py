"""The layers of a vision transformer in float64 NumPy, each reading its weights by key."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

Array = NDArray[np.float64]
Weights = Mapping[str, Array]

BATCH_NORM_EPS = 1e-5


def linear(weights: Weights, name: str, x: Array) -> Array:
    """Multiply by `name.weight` and add `name.bias` where there is one."""
    y = x @ weights[f"{name}.weight"].T
    return y + weights[f"{name}.bias"] if f"{name}.bias" in weights else y


def layer_norm(weights: Weights, name: str, x: Array, eps: float) -> Array:
    """Normalize the last axis with its biased variance."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + eps) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def gelu(x: Array) -> Array:
    """GELU by the normal distribution function itself, not by its tanh approximation."""
    return 0.5 * x * (1.0 + erf(x / math.sqrt(2.0)))


def softmax(x: Array) -> Array:
    """Softmax over the last axis."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def log_softmax(x: Array) -> Array:
    """Logarithm of the softmax over the last axis."""
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def conv(weights: Weights, name: str, x: Array, stride: int, padding: int) -> Array:
    """Cross-correlate [B, C, H, W], as one matrix product per image over the windows of its pixels."""
    kernel = weights[f"{name}.weight"]
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[2:], axis=(2, 3))
    windows = windows[:, :, ::stride, ::stride]  # [B, C, H', W', kernel height, kernel width]
    # Image by image: the copied windows of a whole batch would be large.
    y = np.stack([np.tensordot(kernel, image, axes=([1, 2, 3], [0, 3, 4])) for image in windows])
    return y + weights[f"{name}.bias"][:, None, None] if f"{name}.bias" in weights else y


def batch_norm(weights: Weights, name: str, x: Array) -> Array:
    """Normalize the channels of [B, C, H, W] by the running statistics."""
    scale = weights[f"{name}.weight"] / np.sqrt(weights[f"{name}.running_var"] + BATCH_NORM_EPS)
    shift = weights[f"{name}.bias"] - scale * weights[f"{name}.running_mean"]
    return x * scale[:, None, None] + shift[:, None, None]


def attention(weights: Weights, name: str, x: Array, heads: int) -> tuple[Array, Array]:
    """Self-attention over [B, N, D]; returns the output and the probabilities [B, heads, N, N]."""
    batch, tokens, dim = x.shape
    width = dim // heads
    qkv = linear(weights, f"{name}.qkv", x).reshape(batch, tokens, 3, heads, width)
    query, key, value = qkv.transpose(2, 0, 3, 1, 4)
    probabilities = softmax(query @ key.transpose(0, 1, 3, 2) / math.sqrt(width))
    mixed = (probabilities @ value).transpose(0, 2, 1, 3).reshape(batch, tokens, dim)
    return linear(weights, f"{name}.proj", mixed), probabilities


def mlp(weights: Weights, name: str, x: Array) -> Array:
    """Two linear layers with a GELU between them."""
    return linear(weights, f"{name}.fc2", gelu(linear(weights, f"{name}.fc1", x)))
