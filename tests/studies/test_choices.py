import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from studies.choices import Fused, counts_within, random_choice, top_choice, without_return
from studies.experiments import ARMS, EXPERIMENTS, SETS, arms_of
from studies.networks import network_of, recipe_of
from tofe_export.model.config import ToFeConfig
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.model.selector import threshold_choice
from tofe_export.model.tofe import ToFe, build_tofe

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 4, "num_heads": 3, "num_classes": 5}


def network(**parts: str) -> ToFe:
    torch.manual_seed(0)
    return build_tofe(ToFeConfig("vit_tiny_patch16_224", SMALL, **parts)).eval()


@pytest.mark.parametrize("approximator", ["bottleneck", "identity", "discard"])
@given(
    counts=st.tuples(*[st.integers(1, 16)] * 3).map(lambda found: tuple(sorted(found, reverse=True))),
    seed=st.integers(0, 99),
)
@settings(max_examples=15, deadline=None)
def test_given_counts_on_the_masked_path_are_the_fixed_path(
    approximator: str, counts: tuple[int, ...], seed: int
) -> None:
    model = network(approximator=approximator)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        masked = model.forward_masked(images, top_choice(model, counts))
        fixed = model.forward_fixed(images, FixedPath(counts))
    assert [mask.sum(dim=1).tolist() for mask in masked.masks] == [[count] * 2 for count in counts]
    torch.testing.assert_close(masked.logits, fixed.logits, atol=2e-5, rtol=1e-4)


def test_scores_get_gradients_through_given_counts() -> None:
    model = network()
    out = model.forward_masked(torch.randn(2, 3, 32, 32), top_choice(model, (8, 8, 8), temperature=0.5))
    out.logits.square().sum().backward()
    assert all(stage.selector.out.weight.grad.abs().sum() > 0 for stage in model.stages)


def test_random_counts() -> None:
    chosen = [random_choice((3, 5))(1, torch.zeros(4, 16, 2)) for _ in range(2)]
    assert all((mask.sum(dim=1) == 5).all() for mask in chosen)
    assert not torch.equal(*chosen)


def test_what_may_not_return_does_not() -> None:
    first, second = (torch.tensor([[[one, 0.0] for one in row]]) for row in ([1.0, -1.0, 1.0], [1.0, 1.0, -1.0]))
    choose = without_return()
    assert choose(0, first).tolist() == [[1, 0, 1]]
    assert choose(1, second).tolist() == [[1, 0, 0]]
    assert threshold_choice(1, second).tolist() == [[1, 1, 0]]


def test_the_fused_path_says_how_many_tokens_ran() -> None:
    model = network(selector="cls-attention", approximator="fuse")
    images = torch.randn(2, 3, 32, 32)
    out = Fused(model, (8, 4, 2))(images, torch.tensor(1.0), torch.tensor(0.0), None)
    assert [mask.sum(dim=1).tolist() for mask in out.masks] == [[8, 8], [4, 4], [2, 2]]
    torch.testing.assert_close(out.logits, model.forward_fixed(images, FixedPath((8, 4, 2))).logits)


@pytest.mark.parametrize("shape", ["geometric", "uniform"])
@pytest.mark.parametrize("budget", [0.5, 0.7])
def test_counts_are_the_largest_within_the_budget(shape: str, budget: float) -> None:
    model = network()
    counts = [float(count) for count in counts_within(model, shape, budget)]
    whole = dense_macs(model.vit)
    assert tofe_macs(model, counts) / whole <= budget
    if shape == "uniform":
        assert len(set(counts)) == 1
        assert tofe_macs(model, [count + 1 for count in counts]) / whole > budget
    else:
        assert counts[0] >= counts[1] >= counts[2]


@pytest.mark.parametrize("images", ["clothing10", "cifar10"])
@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_can_be_built_and_its_budget_reached(images: str, arm: str) -> None:
    recipe = recipe_of(SETS[images], ARMS[arm], 0)
    model = network_of(recipe, ARMS[arm], 10)
    least = tofe_macs(model, [1.0] * len(model.stages)) / dense_macs(model.vit)
    assert model.tokens == 64
    assert len(model.vit.blocks) == 12
    assert ARMS[arm].shape in ("all", "half") or least < recipe.tofe.budget


def test_a_network_is_the_same_for_one_seed() -> None:
    arm = ARMS["bottleneck-50"]
    one, other = (network_of(recipe_of(SETS["clothing10"], arm, 3), arm, 10) for _ in range(2))
    for first, second in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(first, second)


def test_experiments_name_arms() -> None:
    assert {name for one in EXPERIMENTS.values() for name in one.arms} <= set(ARMS)
    assert [arm.name for arm in arms_of(("reuse", "approximation"))][:3] == [
        "bottleneck-50",
        "identity-50",
        "discard-50",
    ]
