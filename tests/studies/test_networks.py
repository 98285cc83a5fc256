"""Selectors of the study's own: what they cost, and that nothing else is different."""

import pytest
import torch

from studies import training
from studies.experiments import ARMS, SETS
from studies.images import Loaded
from studies.networks import network_of, recipe_of
from studies.paths import FittedAlone
from tests.helpers import require_copied_blocks
from tofe_export.model.flops import _selector_macs, count_macs, tofe_macs
from tofe_export.model.tofe import ToFe
from tofe_export.training.phase import Phase


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


@pytest.mark.parametrize("arm", ["bottleneck-50", "bottleneck-alone-50", "bottleneck-6-blocks", "identity-6-blocks"])
def test_estimates_are_fitted_alone_where_the_arm_says_so(arm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Phase] = []
    monkeypatch.setattr(training, "_run", lambda phase, *given: begun.append(phase))
    monkeypatch.setattr(training.budget, "set_thresholds", lambda *given: None)
    teacher = network_of(recipe_of(SETS["clothing10"], None, 1), None, 10)
    training.train_arm(SETS["clothing10"], ARMS[arm], black(64), teacher, 0, torch.device("cpu"))
    (phase,) = begun
    alone = arm in ("bottleneck-alone-50", "bottleneck-6-blocks")
    assert isinstance(phase.forward, FittedAlone) == alone
    if isinstance(phase, training.GivenCounts):
        assert phase.counted is (phase.forward.path if alone else phase.forward)


def black(size: int) -> Loaded:
    squares = torch.zeros(size, 3, 64, 64, dtype=torch.uint8)
    return Loaded(tuple("0123456789"), squares, torch.zeros(size).long(), squares[:4].float(), squares, squares)


def test_block_estimates_begin_as_the_teachers_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    images, arm = SETS["clothing10"], ARMS["block-50"]
    teacher = network_of(recipe_of(images, None, 1), None, 10)
    begun: list[ToFe] = []
    monkeypatch.setattr(training, "_run", lambda phase, *given: begun.append(phase.model))
    monkeypatch.setattr(training.budget, "set_thresholds", lambda *given: None)
    training.train_arm(images, arm, black(64), teacher, 0, torch.device("cpu"))
    for name, value in teacher.vit.state_dict().items():
        assert torch.equal(begun[0].vit.state_dict()[name], value)
    require_copied_blocks(begun[0])
