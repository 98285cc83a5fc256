import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from studies.choices import counts_for, random_choice, top_choice
from studies.experiments import ARMS, EXPERIMENTS, SETS, arms_of
from studies.networks import network_of, recipe_of
from studies.paths import FittedAlone, Fused
from studies.training import GivenCounts, given_counts
from tests.helpers import sampled
from tofe_export.documents.history import TOFE
from tofe_export.model.config import ToFeConfig
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.model.outputs import MaskedOutput
from tofe_export.model.selector import Choose, gumbel_choice
from tofe_export.model.tofe import ToFe, build_tofe
from tofe_export.training.phase import Phase

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


@pytest.mark.parametrize("bias", [0.0, 9.0])
def test_scores_get_gradients_through_given_counts_wherever_they_lie(bias: float) -> None:
    """Nothing holds the scores around 0, so where they lie must not matter."""
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    gradients = []
    for raised in (0.0, bias):
        model = network()
        for stage in model.stages:
            torch.nn.init.normal_(stage.selector.out.weight, std=0.2, generator=torch.Generator().manual_seed(1))
            torch.nn.init.constant_(stage.selector.out.bias[:1], raised)
        out = model.forward_masked(images, top_choice(model, (8, 8, 8), temperature=0.3))
        out.logits.square().sum().backward()
        gradients.append([stage.selector.out.weight.grad for stage in model.stages])
    for first, second in zip(*gradients, strict=True):
        assert first.abs().sum() > 0
        torch.testing.assert_close(second, first, rtol=1e-3, atol=1e-6)


def gradients_of(choose: Choose, stage: int, scores: list[float], worth: list[float]) -> Tensor:
    """Of the worth of the kept tokens with respect to the scores of one image."""
    logits = torch.tensor([[[score, 0.0] for score in scores]], requires_grad=True)
    (choose(stage, logits) * torch.tensor(worth)).sum().backward()
    assert logits.grad is not None
    return logits.grad[0, :, 0]


@given(
    scores=st.lists(st.floats(-3, 3, width=32), min_size=3, max_size=9, unique=True),
    worth=st.lists(st.floats(-1, 1, width=32), min_size=9, max_size=9),
    count=st.integers(1, 8),
)
@settings(max_examples=50, deadline=None)
def test_gradients_are_those_of_a_number_that_stays(scores: list[float], worth: list[float], count: int) -> None:
    """Against the same by bisection: the cut that keeps the sum, for scores moved a little along the gradient."""
    count = min(count, len(scores) - 1)
    worth = worth[: len(scores)]
    found = gradients_of(top_choice(network(), (count,), temperature=0.5), 0, scores, worth).double()
    exact, value = torch.tensor(scores, dtype=torch.float64), torch.tensor(worth, dtype=torch.float64)
    ranked = exact.sort(descending=True).values
    total = ((exact - ranked[count - 1 : count + 1].mean()) / 0.5).sigmoid().sum()

    def worth_of(moved: Tensor) -> Tensor:
        low, high = moved.min() - 50, moved.max() + 50
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if ((moved - middle) / 0.5).sigmoid().sum() > total else (low, middle)
        return (((moved - middle) / 0.5).sigmoid() * value).sum()

    for token in range(len(scores)):
        step = torch.zeros_like(exact)
        step[token] = 1e-5
        slope = (worth_of(exact + step) - worth_of(exact - step)) / 2e-5
        assert found[token].item() == pytest.approx(slope.item(), abs=1e-4)


def test_what_would_raise_all_scores_raises_none() -> None:
    found = gradients_of(top_choice(network(), (2,), temperature=0.3), 0, [2.1, 2.5, 2.3, 2.7, 9.0], [1.0] * 5)
    torch.testing.assert_close(found, torch.zeros(5), rtol=0, atol=1e-6)


def test_gradients_are_steepest_at_the_cut() -> None:
    choose = top_choice(network(), (2,), temperature=0.3)
    found = [gradients_of(choose, 0, [0.5, 2.5, 2.7, 9.0], [float(one == own) for one in range(4)])[own]
             for own in range(4)]  # fmt: skip
    assert found[1].item() == pytest.approx(found[2].item())
    assert found[1] > 100 * found[0] > 0
    assert found[1] > 100 * found[3] >= 0


def test_discarded_tokens_do_not_move_the_cut() -> None:
    model = network(approximator="discard")
    choose = top_choice(model, (3, 1), temperature=0.3)
    choose(0, torch.tensor([[[score, 0.0] for score in (1.0, 0.0, 3.0, 2.0)]]))
    found = gradients_of(choose, 1, [0.4, 0.5, 0.6, 0.0], [1.0, 0.0, 0.0, 0.0])  # the second is gone
    assert found[1] == 0
    alone = gradients_of(top_choice(network(), (1,), temperature=0.3), 0, [0.4, 0.6, 0.0], [1.0, 0.0, 0.0])
    torch.testing.assert_close(found[[0, 2, 3]], alone)


def test_a_stage_learns_what_later_ones_miss() -> None:
    """A token that is gone would be worth something to a stage that would keep it."""
    model = network(approximator="discard")
    first = torch.tensor([[[score, 0.0] for score in (3.0, 2.0, 1.0, 0.9, 0.8)]], requires_grad=True)
    later, worth = torch.tensor([0.4, 0.0, 0.6, 5.0, 0.1]), torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0])
    choose = top_choice(model, (3, 1), temperature=0.3)
    alive = choose(0, first)
    mask = choose(1, torch.stack([later, torch.zeros(5)], dim=1)[None]) * alive
    assert mask.tolist() == [[0, 0, 1, 0, 0]]
    (mask * worth).sum().backward()
    # The stage would keep the fourth, whose score is above its cut, and not the fifth.
    wanted = gradients_of(top_choice(model, (3,), temperature=0.3), 0, first[0, :, 0].tolist(), [0, 0, 0, 1.0, 0])
    torch.testing.assert_close(first.grad[0, :, 0], wanted)
    assert wanted[3] > 0


def test_a_stage_that_keeps_all_that_is_left_has_no_gradient() -> None:
    logits = torch.randn(2, 16, 2, requires_grad=True)
    kept = top_choice(network(), (16,))(0, logits)
    assert (kept == 1).all()
    assert not kept.requires_grad
    discarding = top_choice(network(approximator="discard"), (4, 4))
    first, second = discarding(0, logits), discarding(1, logits)
    assert (second == 1).all()  # also of what is gone: nothing that is there goes here
    assert first.requires_grad
    assert not second.requires_grad


def test_random_counts() -> None:
    chosen = [random_choice((3, 5))(1, torch.zeros(4, 16, 2)) for _ in range(2)]
    assert all((mask.sum(dim=1) == 5).all() for mask in chosen)
    assert not torch.equal(*chosen)


def test_what_may_not_return_does_not() -> None:
    first, second = (
        torch.tensor([[[one, 0.0] for one in row]]) for row in ([3.0, 0.0, 2.0, 1.0], [1.0, 9.0, 2.0, 3.0])
    )
    for returning, wanted in ((True, [0, 1, 0, 1]), (False, [0, 0, 1, 1])):
        choose = top_choice(network(), (3, 2), returning=returning)
        assert choose(0, first).tolist() == [[1, 0, 1, 1]]
        assert choose(1, second).tolist() == [wanted]


def test_estimates_that_are_fitted_alone_draw_nothing_else() -> None:
    model = network().train()
    for stage in model.stages:
        if stage.approximator is not None:
            torch.nn.init.normal_(stage.approximator.up.weight, std=0.1)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        usual = model.forward_masked(images, gumbel_choice(1.0, 0.0))

    def path(images: Tensor, *settings: Tensor | None) -> MaskedOutput:
        return model.forward_masked(images, gumbel_choice(1.0, 0.0))

    out = FittedAlone(path, model)(images, torch.tensor(1.0), torch.tensor(0.0), None)
    torch.testing.assert_close(out.logits, usual.logits)
    torch.testing.assert_close(out.estimates, usual.estimates)
    sum(one.square().sum() for one in out.estimates).backward()
    trained = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert trained == {name for name, _ in model.named_parameters() if "approximator" in name}
    model.zero_grad(set_to_none=True)
    out.logits.square().sum().backward()  # which reaches everything, as usual
    assert all(weight.grad is not None for weight in model.parameters())


def test_the_fused_path_says_how_many_tokens_ran() -> None:
    model = network(selector="cls-attention", approximator="fuse")
    images = torch.randn(2, 3, 32, 32)
    out = Fused(model, (8, 4, 2))(images, torch.tensor(1.0), torch.tensor(0.0), None)
    assert [mask.sum(dim=1).tolist() for mask in out.masks] == [[8, 8], [4, 4], [2, 2]]
    torch.testing.assert_close(out.logits, model.forward_fixed(images, FixedPath((8, 4, 2))).logits)


@pytest.mark.parametrize(("arm", "shape"), [("bottleneck-50", "geometric"), ("bottleneck-50", "uniform"),
                                            ("dynamicvit-50", "geometric"), ("evit-50", "geometric")])  # fmt: skip
def test_the_counts_are_those_nearest_to_the_budget(arm: str, shape: str) -> None:
    model = network_of(recipe_of(SETS["clothing10"], ARMS[arm], 0), ARMS[arm], 10)
    for budget in (0.35, 0.5, 0.7, 0.85):
        counts = counts_for(model, shape, budget)
        cost = tofe_macs(model, [float(count) for count in counts]) / dense_macs(model.vit)
        assert abs(cost - budget) <= 1 / 64 * 4 / 12 / 2  # half of what a token more costs in one stage
        assert counts[0] >= counts[1] >= counts[2]
        if shape == "uniform":
            assert counts[0] - counts[2] in (0, 1)
        else:  # r, r^2 and r^3 of the tokens, rounded, with one r
            least = [((count - 0.5) / 64) ** (1 / power) for power, count in enumerate(counts, 1) if count > 1]
            most = [((count + 0.5) / 64) ** (1 / power) for power, count in enumerate(counts, 1)]
            assert max(least) <= min(most)


def test_shapes_by_hand() -> None:
    model = network()
    assert counts_for(model, "all", 0.5) == (16, 16, 16)
    assert counts_for(model, "half", 0.5) == (8, 16, 16)
    geometric = network_of(recipe_of(SETS["clothing10"], ARMS["dynamicvit-50"], 0), ARMS["dynamicvit-50"], 10)
    first, second, third = counts_for(geometric, "geometric", 0.5)
    assert second == pytest.approx(64 * (first / 64) ** 2, abs=1.5)
    assert third == pytest.approx(64 * (first / 64) ** 3, abs=1.5)
    assert first > second + 5 > third + 10


@pytest.mark.parametrize("arm", ["uniform-50", "dynamicvit-50", "evit-50", "random-50", "dense", "identity-6-blocks"])
def test_given_counts_fall_as_the_budget_of_the_others_does(arm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images, kind = SETS["clothing10"], ARMS[arm]
    recipe = recipe_of(images, kind, 0)
    model = network_of(recipe, kind, 10)
    phase = GivenCounts(TOFE, recipe, model, model.vit, 100, torch.device("cpu"), arm=kind)
    used: list[tuple[int, ...]] = []
    monkeypatch.setattr(Phase, "step", lambda own, *given: used.append(own.forward.counts))
    for number in (0, 120, 240, 799):  # of 800, and the budget falls during the first 240
        phase.step([], number, 0)
    final = given_counts(model, kind, recipe)
    assert used[2:] == [final, final]
    if kind.shape in ("all", "half"):
        assert used[0] == used[1] == final
    else:
        assert sum(used[0]) > sum(used[1]) > sum(final)
        cost = tofe_macs(model, [float(count) for count in used[0]]) / dense_macs(model.vit)
        assert cost == pytest.approx(phase.steering.target.start, abs=0.01)


def test_what_has_nothing_to_fit_has_no_loss_for_it() -> None:
    losses = {arm: recipe_of(SETS["clothing10"], ARMS[arm], 0).loss.approximation for arm in ARMS}
    assert {arm for arm, weight in losses.items() if not weight} == {arm for arm in ARMS if arm.startswith("identity")}


@pytest.mark.parametrize("images", sampled(["clothing10", "cifar10"], 2))
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
