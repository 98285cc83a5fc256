"""Every layer that could be computed in 8 bits, and the kind a recipe knows it by."""

from collections import Counter

import pytest

from tests.helpers import exported_tofe, small_tofe
from tofe_export.documents.recipe import KINDS
from tofe_export.graph.export import export_dense
from tofe_export.precision.half import score_heads
from tofe_export.precision.kinds import quantizable


def test_a_networks_layers() -> None:
    found = Counter(quantizable(exported_tofe().graph).values())
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


@pytest.mark.parametrize(("selector", "approximator"), [("linear", "identity"), ("attention", "discard")])
def test_no_approximator_to_quantize(selector: str, approximator: str) -> None:
    assert "approximator" not in quantizable(exported_tofe(selector, approximator, short=True).graph).values()


def test_a_block_that_approximates_counts_to_the_approximators() -> None:
    found = Counter(quantizable(exported_tofe("linear", "block", short=True).graph).values())
    assert found["approximator"] == 6, "all of the first stage; what the last one freezes is read by nobody"
    assert found["attention"] == 4


@pytest.mark.parametrize(
    ("selector", "approximator"), [("mlp", "bottleneck"), ("linear", "block"), ("attention", "discard")]
)
def test_keep_scores_are_never_made_in_8_bits(selector: str, approximator: str) -> None:
    graph = exported_tofe(selector, approximator, short=True).graph
    scoring = score_heads(graph)
    found = quantizable(graph)
    assert set(found.values()) <= set(KINDS)
    assert scoring
    assert not [node.name for node in graph if id(node) in scoring and node.name in found]
