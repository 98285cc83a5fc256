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
from tests.chain.configurations import PER_SHARE, SHARES, every_run, explore, fixed, traits
from tests.chain.wanted import PAIRS_SHOWN, WANTED
from tofe_export.graph import export
from tofe_export.graph.passes import PIPELINE
from tofe_export.model.operators import token_partition

all_fixed = functools.cache(lambda: [it for share in SHARES for it in fixed(share)])
of_every_run = functools.cache(lambda: [it for share in SHARES for it in every_run(share)])


def test_those_of_every_run_show_what_is_wanted() -> None:
    found = [traits(it) for it in of_every_run()]
    assert [sorted(wanted) for wanted in WANTED if not any(wanted <= its for its in found)] == []
    assert all(every_run(share) for share in SHARES)


@pytest.mark.slow
def test_they_show_most_pairs_of_traits_of_the_200() -> None:
    pairs = _pairs(all_fixed())
    assert len(_pairs(of_every_run()) & pairs) >= PAIRS_SHOWN * len(pairs)


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
