"""Modules are found in the graph by their PyTorch names, and no module of a good export is blamed."""

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from tests.helpers import ONE_STAGE, SMALL_KEEP, TWO_STAGES, small_images, small_tofe
from tofe_export.artifacts.opened import OpenedOnnx
from tofe_export.graph.export import export_tofe
from tofe_export.graph.modules import module_values, modules_with_nodes
from tofe_export.graph.passes.taps import tap_name
from tofe_export.model.fixed_path import FixedPath
from tofe_export.parity.divergence import diverging_modules, stage_of_module
from tofe_export.parity.tolerances import TOLERANCES
from tofe_export.precision.half import to_half

# Three stages in both forms; of the other kinds of parts each in one: the two differ in what reads the tokens behind a
# stage, whatever parts that has, and not at all where tokens are discarded.
KINDS: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({}, False),
    ({"selector": "linear", "approximator": "block"}, True),
    ({"approximator": "identity", "dense_output": True, "reg_tokens": 2}, False),
    ({"selector": "attention", "approximator": "discard"}, True),
    ({"selector": "cls-attention", "approximator": "fuse"}, True),
    ({"backbone": "lvvit_t"}, True),
    ({"backbone": "lvvit_s", "selector": "attention"}, False),  # residual scales, which export folds into weights
]


@pytest.mark.parametrize(
    ("kind", "rearranged"),
    KINDS,
    ids=[f"{'-'.join(map(str, kind.values())) or 'default'}-{form}" for kind, form in KINDS],
)
def test_no_module_of_a_good_export_is_blamed(kind: dict[str, Any], rearranged: bool) -> None:
    # LV-ViT's head reads every token, so a single stage of it already has all the parts.
    size = ONE_STAGE if "backbone" in kind else TWO_STAGES
    network = small_tofe(**kind, **size) if kind else small_tofe()
    keep = SMALL_KEEP[: len(network.stages)]
    runner = opened(export_tofe(network, keep, rearranged, taps=True))
    images = small_images(3, 8)
    outputs = runner.run(images.numpy())
    stages = range(len(keep))
    chosen = {index: torch.from_numpy(outputs[tap_name(index, "perm")]) for index in stages}
    arguments = (network, runner, images, FixedPath(keep, rearranged, selection=chosen))
    assert diverging_modules(*arguments, limit=1e-4) == []
    # The same call must be able to blame: with no tolerance at all, float32 sums in another order differ somewhere.
    blamed = {found.name for found in diverging_modules(*arguments, limit=0.0)}
    assert {"vit.blocks.0.norm1", "vit.blocks.0.mlp.fc1"} & blamed
    assert len(blamed) >= 12


def opened(model: ir.Model, precision: str = "fp32") -> OpenedOnnx:
    return OpenedOnnx(ir.to_proto(model).SerializeToString(), precision=precision)


def test_a_block_and_its_parts_are_found_in_order() -> None:
    values = module_values(export_tofe(small_tofe(), SMALL_KEEP, True, taps=False))
    names = list(values)
    parts = [f"vit.blocks.1.{part}" for part in ("norm1", "attn", "norm2", "mlp.fc1", "mlp.act", "mlp.fc2", "mlp")]
    places = [names.index(name) for name in parts]
    assert places == sorted(places)
    assert names.index("vit.patch_embed.proj") < places[0]
    assert values["stages.0.selector"].name == "stage0.scores"
    assert "stages.0.approximator" in values
    assert values["vit.head"].name == "logits"


@pytest.mark.parametrize("outputs", [("logits",), ("features",), ("features", "logits")])
def test_the_last_norm_is_found_whatever_rows_are_read_of_it(outputs: tuple[str, ...]) -> None:
    network = small_tofe() if outputs == ("logits",) else small_tofe(dense_output=True, **TWO_STAGES)
    keep = SMALL_KEEP[: len(network.stages)]
    model = export_tofe(network, keep, False, taps=False, outputs=outputs)
    assert module_values(model)["vit.norm"].name == "vit.norm/LayerNormalization_output_0"
    path = FixedPath(keep, False, features="features" in outputs)
    with torch.no_grad():
        network.vit.norm.bias += 0.1
    blamed = [found.name for found in diverging_modules(network, opened(model), small_images(2), path, limit=1e-4)]
    assert blamed[0] == "vit.norm"


def test_half_precision_changes_no_name() -> None:
    full, half = (export_tofe(small_tofe(), SMALL_KEEP, True, taps=False) for _ in range(2))
    to_half(half, "fp16")
    assert set(module_values(half)) == set(module_values(full))
    assert modules_with_nodes(half) >= modules_with_nodes(full)
    runner = opened(half, "fp16")
    ours = opened(full).run_modules(small_images(2).numpy())
    theirs = runner.run_modules(small_images(2).numpy())
    worst = {name: float(np.abs(ours[name] - theirs[name].astype(np.float32)).max()) for name in ours}
    assert max(worst.values()) > 0
    assert worst["vit.patch_embed.proj"] < TOLERANCES["fp16"].tokens_max_abs


def test_stage_of_a_module() -> None:
    network = small_tofe()
    known = {"vit.patch_embed.proj": None, "vit.blocks.0.mlp": None, "vit.blocks.1.mlp.fc1": 0, "vit.blocks.3": 2}
    assert {name: stage_of_module(name, network) for name in known} == known
    assert stage_of_module("stages.1.selector.mlp.0", network) == 1
    assert stage_of_module("vit.head", network) is None
