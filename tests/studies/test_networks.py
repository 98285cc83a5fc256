"""Selectors of the study's own: what they cost, and that nothing else is different."""

import pytest
import torch

from studies.experiments import ARMS, SETS
from studies.networks import network_of, recipe_of
from tofe_export.model.flops import _selector_macs, count_macs, tofe_macs
from tofe_export.model.tofe import ToFe


def network(arm: str) -> ToFe:
    return network_of(recipe_of(SETS["digits"], ARMS[arm], 0), ARMS[arm], 10).eval()


@pytest.mark.parametrize("arm", ["narrow-50", "shared-50"])
def test_what_is_counted_is_what_runs(arm: str) -> None:
    selector = network(arm).stages[0].selector
    rows = torch.randn(1, 17, 64)
    assert _selector_macs(selector, 17.0) == count_macs(lambda: selector(rows, 1))


def test_shared_features_cost_as_much_as_own_ones_and_have_fewer_weights() -> None:
    own, shared, narrow = network("bottleneck-50"), network("shared-50"), network("narrow-50")
    assert tofe_macs(shared, [8.0, 8.0, 8.0]) == tofe_macs(own, [8.0, 8.0, 8.0])
    assert tofe_macs(narrow, [8.0, 8.0, 8.0]) < tofe_macs(own, [8.0, 8.0, 8.0])
    sizes = [sum(one.numel() for one in model.stages.parameters()) for model in (own, shared)]
    assert sizes[1] < sizes[0]
    trunks = {id(stage.selector.trunk) for stage in shared.stages}
    assert len(trunks) == 1
