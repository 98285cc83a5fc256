"""Cases, the keys and shapes of their checkpoints, and the values that fill them from a seed."""

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shapes = dict[str, tuple[int, ...]]

PATCH = 16
CLASSES = 10  # a small head keeps logits.json readable; the rest of the network has its published size


@dataclass(frozen=True)
class Backbone:
    """Sizes of one network; `stem` is the width of LV-ViT's convolutions, 0 for DeiT's single one."""

    dim: int
    depth: int
    heads: int
    mlp_ratio: int
    norm_eps: float
    skip_lam: float = 1.0
    stem: int = 0

    @property
    def selects_at(self) -> tuple[int, int, int]:
        """Blocks of the three selections, one after each quarter of the depth."""
        quarter = self.depth // 4
        return quarter, 2 * quarter, 3 * quarter


def _deit(dim: int, heads: int) -> Backbone:
    return Backbone(dim, depth=12, heads=heads, mlp_ratio=4, norm_eps=1e-6)


def _lvvit(dim: int, depth: int, heads: int, skip_lam: float, stem: int = 64) -> Backbone:
    return Backbone(dim, depth, heads, mlp_ratio=3, norm_eps=1e-5, skip_lam=skip_lam, stem=stem)


BACKBONES = {
    "deit_tiny_patch16_224": _deit(192, 3),
    "deit_small_patch16_224": _deit(384, 6),
    "deit_base_patch16_224": _deit(768, 12),
    "lvvit_t": _lvvit(240, 12, 4, 1.0),
    "lvvit_s": _lvvit(384, 16, 6, 2.0),
    "lvvit_m": _lvvit(512, 20, 8, 2.0),
    "lvvit_l": _lvvit(768, 24, 12, 3.0, stem=128),
}


@dataclass(frozen=True)
class Case:
    """One reference run. `rate` and `fuse` stay None where the method has no such option."""

    name: str
    method: str  # dense, dynamicvit or evit
    backbone: str
    weights_seed: int
    images_seed: int
    images: int = 2
    image_size: int = 224
    rate: float | None = None
    fuse: bool | None = None

    @property
    def sizes(self) -> Backbone:
        """Sizes of the backbone."""
        return BACKBONES[self.backbone]


def _round_to_float32(values: NDArray[np.float64]) -> NDArray[np.float64]:
    # A float32 network then holds exactly these numbers.
    return values.astype(np.float32).astype(np.float64)


def make_value(key: str, shape: tuple[int, ...], seed: int) -> NDArray[Any]:
    """Fill one entry of a checkpoint, whatever other entries there are and in whatever order."""
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, dtype=np.int64)
    rng = np.random.default_rng([seed, zlib.crc32(key.encode())])
    if key.endswith(".running_var"):
        return _round_to_float32(rng.uniform(0.5, 1.5, shape))
    normal = rng.standard_normal(shape)
    if key.endswith((".running_mean", ".bias")):
        return _round_to_float32(0.1 * normal)
    if key in {"cls_token", "pos_embed"}:
        return _round_to_float32(0.5 * normal)
    if len(shape) == 1:  # the scale of a norm
        return _round_to_float32(1.0 + 0.1 * normal)
    return _round_to_float32(normal / np.sqrt(np.prod(shape[1:])))


def make_images(seed: int, count: int, height: int, width: int) -> NDArray[np.float64]:
    """Images of standard normal values; the first ones do not depend on how many there are."""
    return _round_to_float32(np.random.default_rng(seed).standard_normal((count, 3, height, width)))


def make_weights(case: Case) -> dict[str, NDArray[Any]]:
    """Return the whole checkpoint of a case."""
    return {key: make_value(key, shape, case.weights_seed) for key, shape in shapes_of(case).items()}


def shapes_of(case: Case) -> Shapes:
    """All keys of a case's checkpoint under their published names, in the published shapes."""
    sizes = case.sizes
    tokens = (case.image_size // PATCH) ** 2 + 1
    shapes: Shapes = {"cls_token": (1, 1, sizes.dim), "pos_embed": (1, tokens, sizes.dim)}
    shapes |= _stem_shapes(sizes) if sizes.stem else _conv("patch_embed.proj", sizes.dim, 3, PATCH)
    for index in range(sizes.depth):
        shapes |= _block_shapes(f"blocks.{index}", sizes)
    shapes |= _norm("norm", sizes.dim) | _linear("head", CLASSES, sizes.dim)
    if sizes.stem:
        shapes |= _linear("aux_head", CLASSES, sizes.dim)
    if case.method == "dynamicvit":
        for stage in range(len(sizes.selects_at)):
            shapes |= _predictor_shapes(f"score_predictor.{stage}", sizes.dim)
    return shapes


def _linear(name: str, outputs: int, inputs: int, bias: bool = True) -> Shapes:
    weight: Shapes = {f"{name}.weight": (outputs, inputs)}
    return weight | {f"{name}.bias": (outputs,)} if bias else weight


def _conv(name: str, outputs: int, inputs: int, kernel: int, bias: bool = True) -> Shapes:
    weight: Shapes = {f"{name}.weight": (outputs, inputs, kernel, kernel)}
    return weight | {f"{name}.bias": (outputs,)} if bias else weight


def _norm(name: str, dim: int) -> Shapes:
    return {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}


def _batch_norm(name: str, dim: int) -> Shapes:
    statistics: Shapes = {f"{name}.running_mean": (dim,), f"{name}.running_var": (dim,)}
    return _norm(name, dim) | statistics | {f"{name}.num_batches_tracked": ()}


def _stem_shapes(sizes: Backbone) -> Shapes:
    shapes: Shapes = {}
    for number, (inputs, kernel) in enumerate([(3, 7), (sizes.stem, 3), (sizes.stem, 3)], start=1):
        shapes |= _conv(f"patch_embed.conv{number}", sizes.stem, inputs, kernel, bias=False)
        shapes |= _batch_norm(f"patch_embed.bn{number}", sizes.stem)
    return shapes | _conv("patch_embed.proj", sizes.dim, sizes.stem, PATCH // 2)


def _block_shapes(name: str, sizes: Backbone) -> Shapes:
    dim, hidden = sizes.dim, sizes.dim * sizes.mlp_ratio
    return (
        _norm(f"{name}.norm1", dim)
        | _linear(f"{name}.attn.qkv", 3 * dim, dim, bias=not sizes.stem)  # LV-ViT has no bias here
        | _linear(f"{name}.attn.proj", dim, dim)
        | _norm(f"{name}.norm2", dim)
        | _linear(f"{name}.mlp.fc1", hidden, dim)
        | _linear(f"{name}.mlp.fc2", dim, hidden)
    )


def _predictor_shapes(name: str, dim: int) -> Shapes:
    return (
        _norm(f"{name}.in_conv.0", dim)
        | _linear(f"{name}.in_conv.1", dim, dim)
        | _linear(f"{name}.out_conv.0", dim // 2, dim)
        | _linear(f"{name}.out_conv.2", dim // 4, dim // 2)
        | _linear(f"{name}.out_conv.4", 2, dim // 4)
    )
