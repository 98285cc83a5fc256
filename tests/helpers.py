"""Small networks with enough spread that their selections are not degenerate."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from PIL import Image
from torch import nn

from tofe_export.checkpoints.checkpoint import Checkpoint, save
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.errors import InputError, MissingError, TofeError
from tofe_export.graph.export import export_tofe
from tofe_export.model.backbones import image_shape
from tofe_export.model.config import ToFeConfig
from tofe_export.model.tofe import ToFe, build_tofe
from tofe_export.runners.openvino_runner import import_openvino

Network = TypeVar("Network", bound=nn.Module)
SMALL: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2, "num_classes": 5}
SMALL_KEEP = (8, 5, 3)  # of 16 tokens
SMALL_CLASSES = ("ant", "honey bee", "cat", "dog", "eel")
ONE_STAGE: dict[str, Any] = {"depth": 1, "stage_starts": (0,)}
TWO_STAGES: dict[str, Any] = {"depth": 2, "stage_starts": (0, 1)}
"""For `small_tofe` where depth is not the point: a trace takes about as long as it has blocks and stages."""
TWO_KEEP = SMALL_KEEP[:2]
VARIANTS = (
    ("mlp", "bottleneck", True), ("attention", "bottleneck", False), ("mlp", "block", False), ("linear", "block", True),
    ("linear", "identity", True), ("attention", "identity", False), ("linear", "discard", False),
    ("attention", "discard", True),
)  # fmt: skip
"""Selector, approximator, rearranged: every approximator and every selector in both forms."""
_MADE: dict[str, tuple[ToFe, torch.Tensor]] = {}


def small_tofe(
    backbone: str = "vit_tiny_patch16_224",
    selector: str = "mlp",
    approximator: str = "bottleneck",
    stage_starts: tuple[int, ...] = (),
    seed: int = 0,
    dense_output: bool = False,
    centred: bool = True,
    **arguments: Any,
) -> ToFe:
    """A ToFe with 16 patch tokens and random weights of visible size in every parameter.

    `centred` lets each selector keep about half of the tokens. Ranks do not depend on it, so what only looks at keep
    counts may do without. Made once for each set of arguments, and copied: PyTorch's random numbers go on afterwards
    as if it had been made again.
    """
    config = ToFeConfig(backbone, {**SMALL, **arguments}, stage_starts, selector, approximator, dense_output)
    key = repr((config, seed, centred))
    torch.manual_seed(seed)
    if key not in _MADE:
        with torch.inference_mode(mode=False):  # the copies must be ones that can be trained
            _MADE[key] = _make(config, seed, centred), torch.get_rng_state()
    model, state = _MADE[key]
    torch.set_rng_state(state)
    return copy.deepcopy(model)


def save_small(path: Path, seed: int = 0, data: str = "photos") -> None:
    """A checkpoint of `small_tofe` that names its five classes."""
    model = small_tofe(seed=seed)
    save(path, Checkpoint(model, (0.5, 0.3, 0.2), Preprocessing.of_backbone(model.vit), {}, data, SMALL_CLASSES))


def save_noise(path: Path, height: int, width: int) -> None:
    """An image, the same for the same size."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def _make(config: ToFeConfig, seed: int, centred: bool) -> ToFe:
    model = build_tofe(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.15)
            elif "norm" not in name and ".bn" not in name:
                parameter.normal_(std=0.05)
        for name, buffer in model.named_buffers():  # LV-ViT's BatchNorms: statistics of about the size of what they see
            if name.endswith("running_mean"):
                buffer.normal_(std=0.3)
            elif name.endswith("running_var"):
                buffer.uniform_(3, 6)
        # Random selectors put every token on one side; centring their bias splits them.
        images = torch.randn(8, *image_shape(model.vit), generator=torch.Generator().manual_seed(seed))
        for stage in model.stages:
            if stage.selector is None:
                continue
            stage.selector.out.weight.mul_(5)
            if not centred:
                continue
            traces = [single.stages[stage.index].scores for single in model.forward_threshold(images)]
            median = torch.cat([trace.flatten() for trace in traces]).quantile(0.5)  # between two tokens, on neither
            stage.selector.out.bias[0] -= median
    return model


def sampled(cases: Iterable[Any], every: int) -> list[Any]:
    """Parameters of a test: each `every`th runs always, the others in `make slow`."""
    whole = (case if isinstance(case, tuple) else (case,) for case in cases)
    return [
        pytest.param(*values, marks=() if number % every == 0 else pytest.mark.slow)
        for number, values in enumerate(whole)
    ]


def require_copied_blocks(model: ToFe) -> None:
    """Approximators of the kind `block` are the blocks that their stages begin with."""
    assert model.config.approximator == "block"
    for stage, blocks in zip(model.stages, model.stage_blocks, strict=True):
        if isinstance(stage.approximator, nn.Module):
            own = stage.approximator.block.state_dict()
            for name, value in model.vit.blocks[blocks.start].state_dict().items():
                assert torch.equal(own[name], value), name


@contextlib.contextmanager
def refused_as(
    code: str, kind: type[TofeError] = InputError, **details: object
) -> Iterator[pytest.ExceptionInfo[TofeError]]:
    """Expects an error of this code, with at least these details, that says what to do next."""
    with pytest.raises(kind) as caught:
        yield caught
    assert caught.value.code == code, str(caught.value)
    assert {name: caught.value.details.get(name) for name in details} == details
    assert caught.value.next_step


def refusal(call: Callable[..., object], *arguments: Any, **named: Any) -> TofeError:
    """The error with which `call` refuses; its `code` says which one it is."""
    with pytest.raises(TofeError) as caught:
        call(*arguments, **named)
    return caught.value


def require_openvino() -> Any:
    """OpenVINO, or a skip. A plain import would report to its maker, in a process forked from this one."""
    try:
        return import_openvino()
    except MissingError:
        pytest.skip("OpenVINO is in the extra openvino", allow_module_level=True)


def weightless(make: Callable[[], Network]) -> Network:
    """What `make` returns, without memory for its weights; skips where timm is too old to make networks so."""
    try:
        with torch.device("meta"):
            return make()
    except (RuntimeError, InputError) as error:
        if "meta tensors" not in str(error):
            raise
        pytest.skip("this timm cannot make networks on the meta device")


def small_images(batch: int, seed: int = 0, size: int | tuple[int, int] = 32) -> torch.Tensor:
    """Normalised noise [batch, 3, height, width]; one number is both."""
    height, width = (size, size) if isinstance(size, int) else size
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def exported_tofe(
    selector: str = "mlp", approximator: str = "bottleneck", rearrange: bool = True, short: bool = False
) -> ir.Model:
    """`small_tofe` exported with the keep counts `SMALL_KEEP`; yours to change.

    `short`: only two blocks and stages, which takes less than half of the time; for what is so in every block.
    """
    return ir.from_proto(onnx.load_from_string(_exported(selector, approximator, rearrange, short)))


@functools.cache
def _exported(selector: str, approximator: str, rearrange: bool, short: bool) -> bytes:
    model = small_tofe(selector=selector, approximator=approximator, **(TWO_STAGES if short else {}))
    exported = export_tofe(model, SMALL_KEEP[: len(model.stages)], rearrange, taps=False)
    return bytes(ir.to_proto(exported).SerializeToString())
