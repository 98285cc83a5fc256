"""The property itself: it looks everywhere it should, it finds what is wrong, and it says how to see that again."""

from __future__ import annotations

import functools
import itertools
import shlex
from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import pytest
import torch
from hypothesis import Phase
from torch import Tensor

import tofe_export.graph.functions as bodies
from tests.chain.check import Configuration, check
from tests.chain.configurations import (
    DISTILLED,
    GONE,
    LEARNED,
    LVVITS,
    MOST_BLOCKS,
    PER_SHARE,
    RETURNING,
    SHARES,
    VIT,
    every_run,
    explore,
    fixed,
    traits,
)
from tofe_export.graph import export
from tofe_export.graph.passes import PIPELINE
from tofe_export.model.operators import token_partition
from tofe_export.model.selector import CLS_ATTENTION, NO_SELECTOR

all_fixed = functools.cache(lambda: [it for share in SHARES for it in fixed(share)])
of_every_run = functools.cache(lambda: [it for share in SHARES for it in every_run(share)])


def test_those_of_every_run_cover_every_kind() -> None:
    outputs = [f"outputs {names}" for names in ("logits", "features", "logits+features")]
    stages, forms = [f"stages {count}" for count in (1, 2, 3)], ["plugin", "elide"]
    approximators = [f"approximator {name}" for name in (*RETURNING, *GONE)]
    keeps = [f"keeps {what}" for what in ("one", "some", "all but one", "all")]
    pairs = {
        *itertools.product([f"selector {name}" for name in LEARNED], [f"approximator {name}" for name in RETURNING]),
        *((f"selector {name}", "approximator discard") for name in (*LEARNED, CLS_ATTENTION)),
        (f"selector {CLS_ATTENTION}", "approximator fuse"),
        *itertools.product(forms, [*approximators, *stages, *outputs, *keeps, "taps", "no taps"]),
        *itertools.product(forms, [f"backbone {name}" for name in (VIT, DISTILLED, *LVVITS)]),
        *itertools.product((f"batch {size}" for size in range(1, 6)), [*forms, *stages, "square", "oblong"]),
        *itertools.product(keeps, stages),
        *itertools.product(("dense", "not dense"), outputs),
    }
    alone = {f"selector {NO_SELECTOR}", "stages 0", *(f"depth {depth}" for depth in range(1, MOST_BLOCKS + 1))}
    alone |= {f"global_pool {name}" for name in ("avg", "max", "map")} | {
        "class_token False",
        "starts at 0",
        "starts at 1",
    }
    alone |= {f"reg_tokens {count}" for count in range(3)} | {f"patch_size {size}" for size in (4, 8, 16)}
    found = [traits(it) for it in of_every_run()]
    assert [name for name in sorted(alone) if not any(name in its for its in found)] == []
    assert [pair for pair in sorted(pairs) if not any({*pair} <= its for its in found)] == []


@pytest.mark.slow
def test_they_show_nearly_every_pair_of_traits_of_the_200() -> None:
    assert len({repr(it) for it in of_every_run()}) == len(of_every_run()) == 47
    assert all(every_run(share) for share in SHARES)
    pairs = _pairs(all_fixed())
    assert len(_pairs(of_every_run()) & pairs) >= 0.97 * len(pairs)


def _pairs(configurations: list[Configuration]) -> set[tuple[str, str]]:
    return {pair for it in configurations for pair in itertools.combinations(sorted(traits(it)), 2)}


@pytest.mark.slow
def test_the_fixed_ones_are_200_and_the_same_each_time() -> None:
    assert len({repr(it) for it in all_fixed()}) == len(all_fixed()) == PER_SHARE * len(SHARES) == 200
    assert fixed.__wrapped__("cls") == all_fixed()[:PER_SHARE]


def test_new_ones_are_others() -> None:
    new: list[Configuration] = []
    explore("cls", new.append, 20, (Phase.generate,), new=True)
    assert len(new) == 20
    again: list[Configuration] = []
    explore("cls", again.append, 20, (Phase.generate,), new=True)
    assert {repr(it) for it in new} - {repr(it) for it in again}


def _one_token_too_many(patch: pytest.MonkeyPatch) -> None:
    right = token_partition

    def partition(tokens: Tensor, scores: Tensor, keep: int, prefix: int) -> Any:
        return right(tokens, scores, keep + torch.onnx.is_in_onnx_export(), prefix)

    patch.setattr("tofe_export.model.stage.token_partition", partition)


def _another_permutation(patch: pytest.MonkeyPatch) -> None:
    """Tokens put back by the permutation that took them out: right only where it is its own inverse."""
    right = "ScatterElements <axis = 1> (rows_of_batch, places, ranks)"
    assert right in bodies._REARRANGE
    wrong = "ScatterElements <axis = 1> (rows_of_batch, ranks, places)"
    patch.setattr(bodies, "_REARRANGE", bodies._REARRANGE.replace(right, wrong))


def _another_epsilon(patch: pytest.MonkeyPatch) -> None:
    def norms(model: ir.Model) -> bool:
        for node in model.graph:
            if node.op_type == "LayerNormalization":
                node.attributes["epsilon"] = ir.AttrFloat32("epsilon", 1e-3)
        return True

    patch.setattr("tofe_export.graph.export.PIPELINE", (*PIPELINE, norms))


@pytest.mark.parametrize("plant", [_one_token_too_many, _another_permutation, _another_epsilon])
def test_a_planted_bug_is_found_and_the_command_shows_it_again(
    monkeypatch: pytest.MonkeyPatch, plant: Callable[[pytest.MonkeyPatch], None]
) -> None:
    plant(monkeypatch)
    monkeypatch.setattr(export, "_trace", export._trace.fresh)  # type: ignore[attr-defined]
    tried = (it for it in of_every_run() if len(it.keep) == 1 and it.network["depth"] <= 2 and "features" in it.outputs)
    error = next(filter(None, map(_failure, tried)))
    assert isinstance(error, AssertionError)
    (note,) = error.__notes__
    _, option, code = shlex.split(note.removeprefix("Again: "))
    assert option == "-c"
    with pytest.raises(AssertionError) as again:
        exec(code)
    assert str(again.value) == str(error)


def _failure(it: Configuration) -> Exception | None:
    try:
        check(it)
    except Exception as error:
        return error
    return None
