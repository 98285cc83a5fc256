"""Every layer that could be computed in 8 bits, and the kind a recipe knows it by."""

from collections import Counter

import pytest

from tests.helpers import exported_tofe, small_tofe
from tofe_export.documents.recipe import KINDS
from tofe_export.graph.export import export_dense
from tofe_export.precision.half import score_heads
from tofe_export.precision.kinds import quantizable


def kinds(approximator: str = "bottleneck", selector: str = "mlp") -> Counter[str]:
    return Counter(quantizable(exported_tofe(selector, approximator).graph).values())


def test_a_networks_layers() -> None:
    found = kinds()
    # The cut last block computes its queries apart from keys and values.
    assert found == {
        **{"patch_embed": 1, "qkv": 5, "attention": 8, "proj": 4, "fc1": 4, "fc2": 4, "head": 1},
        **{"approximator": 4, "selector": found["selector"]},
    }
    assert found["selector"] > 0


def test_a_dense_networks_layers() -> None:
    graph = export_dense(small_tofe()).graph
    blocks = {"qkv": 4, "attention": 8, "proj": 4, "fc1": 4, "fc2": 4}
    assert Counter(quantizable(graph).values()) == {"patch_embed": 1, **blocks, "head": 1}


@pytest.mark.parametrize("approximator", ["identity", "discard"])
def test_no_approximator_to_quantize(approximator: str) -> None:
    assert "approximator" not in kinds(approximator)


def test_a_block_that_approximates_counts_to_the_approximators() -> None:
    assert kinds("block")["approximator"] == 2 * 6
    assert kinds("block")["attention"] == 8


@pytest.mark.parametrize("selector", ["mlp", "linear", "attention"])
def test_keep_scores_are_never_made_in_8_bits(selector: str) -> None:
    graph = exported_tofe(selector).graph
    scoring = score_heads(graph)
    found = quantizable(graph)
    assert set(found.values()) <= set(KINDS)
    assert scoring
    assert not [node.name for node in graph if id(node) in scoring and node.name in found]
