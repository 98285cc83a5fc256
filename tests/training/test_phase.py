"""Single steps: what the recipe's parts do to them, against the plain step or a value worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.training.runs import RECIPE
from tofe_export.data.images import Batch
from tofe_export.documents.history import DENSE, TOFE
from tofe_export.documents.history import Phase as Name
from tofe_export.documents.training_recipe import TrainingRecipe
from tofe_export.model.outputs import MaskedOutput
from tofe_export.model.tofe import ToFe
from tofe_export.training import optimizer, setup
from tofe_export.training.forward import autocast_dtype
from tofe_export.training.phase import Phase, frozen_copy
from tofe_export.training.processes import Processes
from tofe_export.training.recipe import config_of
from tofe_export.training.seeds import seed_of

CPU = torch.device("cpu")
STEPS = 6


def network(recipe: TrainingRecipe = RECIPE) -> ToFe:
    return setup.build_network(recipe, config_of(recipe), False, None)[0]


def phase(name: Name = TOFE, recipe: TrainingRecipe = RECIPE) -> Phase:
    model = network(recipe)
    return Phase(name, recipe, model.train(), frozen_copy(model.vit) if name == TOFE else None, STEPS, CPU)


def batch(size: int = 4, seed: int = 0) -> Batch:
    drawn = torch.Generator().manual_seed(seed)
    images = torch.randn(size, 3, 16, 16, generator=drawn)
    return Batch(images, torch.randint(0, 1000, (size,), generator=drawn), ("",) * size)


def stepped(running: Phase, steps: int = 3) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses of some steps on the same images, and the weights after them."""
    losses = [running.step([batch()], number, seed_of(0, running.name, 0, number))["loss"] for number in range(steps)]
    return losses, running.model.state_dict()


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], atol: float) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=atol)


@pytest.mark.parametrize("name", [DENSE, TOFE])
@pytest.mark.parametrize("key", ["checkpointing", "channels_last"])
def test_what_saves_memory_or_time_changes_no_result(name: Name, key: str) -> None:
    plain, weights = stepped(phase(name))
    found, other = stepped(phase(name, RECIPE.changed(run={key: True})))
    assert found == pytest.approx(plain, abs=1e-6)
    assert_equal(other, weights, 1e-5)


def test_each_part_is_clipped_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def norms(clip_norm: float) -> list[float]:
        running = phase(TOFE, RECIPE.changed(optimizer={"clip_norm": clip_norm}))
        found: list[float] = []

        def read() -> None:
            gradients = (
                [one.grad.flatten() for one in part.parameters()] for part in optimizer.parts_of(running.model)
            )
            found.extend(torch.cat(each).norm().item() for each in gradients)

        monkeypatch.setattr(running.optimizer, "step", read)
        running.step([batch()], 0, 0)
        return found

    whole = norms(0.0)
    middle = sum(sorted(whole)[1:]) / 2
    assert max(whole) > middle > min(whole) > 0
    assert norms(middle) == pytest.approx([min(one, middle) for one in whole], rel=1e-4)


def test_checkpointing_keeps_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that the backward pass keeps of one step."""

    def kept(recipe: TrainingRecipe) -> int:
        running, total = phase(TOFE, recipe), 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal total
            total += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            running.step([batch()], 0, 0)
        return total

    assert kept(RECIPE.changed(run={"checkpointing": True})) < 0.5 * kept(RECIPE)


@pytest.mark.parametrize("name", [DENSE, TOFE])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_narrow_products_train_towards_the_same(name: Name, precision: str) -> None:
    plain, _ = stepped(phase(name))
    found, weights = stepped(phase(name, RECIPE.changed(run={"precision": precision})))
    assert found == pytest.approx(plain, rel=0.03)
    assert all(value.isfinite().all() and value.dtype == torch.float32 for value in weights.values())


def test_auto_is_float32_on_a_processor() -> None:
    assert autocast_dtype("auto", CPU) == torch.float32
    assert autocast_dtype("bf16", CPU) == torch.bfloat16


def test_the_moving_average_follows_the_weights() -> None:
    running = phase(TOFE, RECIPE.changed(run={"ema_decay": 0.5}))
    key, followed = "vit.head.weight", []
    for number in range(STEPS):
        running.step([batch()], number, number)
        followed.append(running.model.state_dict()[key].clone())
    expected = followed[0]
    for number, value in enumerate(followed[1:], start=1):
        decay = min(0.5, 1 - (1 + number) ** (-2 / 3))
        expected = decay * expected + (1 - decay) * value
    torch.testing.assert_close(running.result.state_dict()[key], expected)
    assert not torch.equal(expected, followed[-1])


@pytest.mark.parametrize(("mixup", "cutmix"), [(1.0, 0.0), (0.0, 1.0)])
def test_mixed_images_have_mixed_targets(mixup: float, cutmix: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is that of timm's targets: the weighted mean of both images' own."""
    recipe = RECIPE.changed(images={"mixup": mixup, "cutmix": cutmix}, dense={"label_smoothing": 0.0})
    running = phase(DENSE, recipe)
    seen: list[torch.Tensor] = []
    forward = running.forward.forward

    def watched(images: torch.Tensor) -> torch.Tensor:
        seen.append(images.detach().clone())
        logits = forward(images)
        seen.append(logits.detach())
        return logits

    monkeypatch.setattr(running.forward, "forward", watched)
    given = batch()
    state = np.random.get_state()[1].tolist()
    loss = running.step([batch()], 0, 7)["loss"]
    assert np.random.get_state()[1].tolist() == state
    images, logits = seen
    if mixup:
        lam = ((images - given.images.flip(0)) / (given.images - given.images.flip(0))).median()
    else:
        lam = (images == given.images).float().mean()
    assert 0.01 < lam < 0.99
    assert given.labels is not None
    own, other = (F.cross_entropy(logits, labels) for labels in (given.labels, given.labels.flip(0)))
    assert loss == pytest.approx(float(lam * own + (1 - lam) * other), rel=1e-3)


def test_layer_decay_slows_the_early_blocks() -> None:
    running = phase(DENSE, RECIPE.changed(optimizer={"layer_decay": 0.5}))
    running.step([batch()], 0, 0)
    rates = {id(one): group["lr"] for group in running.optimizer.param_groups for one in group["params"]}
    blocks = [rates[id(block.attn.qkv.weight)] for block in running.model.vit.blocks]
    assert [late / early for early, late in itertools.pairwise(blocks)] == pytest.approx([2.0] * 3)


def test_each_part_of_the_network_learns_at_its_own_rate() -> None:
    running = phase(TOFE, RECIPE.changed(tofe={"selector_lr_scale": 0.5, "backbone_lr_scale": 0.25}))
    running.step([batch()], 0, 0)
    rates = {id(one): group["lr"] for group in running.optimizer.param_groups for one in group["params"]}
    assert set(rates) == {id(one) for one in running.model.parameters()}
    backbone, stage = (getattr(running.model, part) for part in ("vit", "stages"))
    own = [rates[id(next(part.parameters()))] for part in (stage[0].approximator, stage[0].selector, backbone)]
    assert [one / own[0] for one in own] == pytest.approx([1.0, 0.5, 0.25])


@pytest.mark.parametrize("name", ["adamw", "lamb", "sgd", "lion", "nadamw"])
def test_optimizers_by_timm_s_names(name: str) -> None:
    running = phase(TOFE, RECIPE.changed(optimizer={"name": name}))
    before = {key: value.clone() for key, value in running.model.state_dict().items()}
    losses, after = stepped(running)
    assert all(np.isfinite(losses))
    assert not all(torch.equal(before[key], value) for key, value in after.items())


@pytest.mark.parametrize("schedule", ["cosine", "tanh", "poly"])
def test_rates_rise_and_fall_within_the_peak(schedule: str) -> None:
    recipe = RECIPE.changed(
        optimizer={"schedule": schedule, "warmup_epochs": 1.0, "last_lr": 0.1}, dense={"epochs": 4, "lr": 0.01}
    )
    running = phase(DENSE, recipe)
    rates = []
    for number in range(4 * STEPS):
        running.step([batch()], number, number)
        rates.append(running.optimizer.param_groups[0]["lr"])
    assert rates[:STEPS] == sorted(rates[:STEPS])
    assert rates[STEPS:] == sorted(rates[STEPS:], reverse=True)
    assert 0 < min(rates) < max(rates) <= 0.01
    assert rates[-1] == pytest.approx(0.001, rel=0.3)


def test_a_slow_part_falls_as_far_as_the_others() -> None:
    """`last_lr` is a share of each rate, and what does not learn at first never does."""
    running = phase(TOFE, RECIPE.changed(optimizer={"last_lr": 0.1}, tofe={"backbone_lr_scale": 0.01, "lr": 0.01}))
    frozen = phase(TOFE, RECIPE.changed(optimizer={"last_lr": 0.1}, tofe={"backbone_lr_scale": 0.0, "lr": 0.01}))
    for number in range(running.epochs * STEPS):
        running.rates.set(number)
        frozen.rates.set(number)
        assert rate_of(frozen, frozen.model.vit) == 0
        assert rate_of(running, running.model.vit) == pytest.approx(0.01 * rate_of(running, running.model.stages))
    assert 0.001 < rate_of(running, running.model.stages) < 0.003


def rate_of(running: Phase, part: torch.nn.Module) -> float:
    first = next(part.parameters())
    return next(group["lr"] for group in running.optimizer.param_groups if any(one is first for one in group["params"]))


@pytest.mark.parametrize(("name", "own"), [("radam", None), ("mars", None), ("adan", (0.98, 0.92, 0.99)), ("sgd", ())])
def test_two_betas_are_for_all_that_have_two(name: str, own: tuple[float, ...] | None) -> None:
    running = phase(TOFE, RECIPE.changed(optimizer={"name": name, "betas": (0.85, 0.97)}))
    found = running.optimizer.param_groups[0].get("betas", ())
    assert tuple(found) == ((0.85, 0.97) if own is None else own)


def test_tokens_that_are_gone_do_not_steer() -> None:
    """Where tokens are discarded: the spread and the density of scores are those of the tokens that are left."""
    running = phase(TOFE, RECIPE.changed(network={"approximator": "discard"}))
    seen: list[MaskedOutput] = []
    running.forward.register_forward_hook(lambda module, given, out: seen.append(out))
    values = running.step([batch()], 0, 0)
    (out,) = seen
    alive = out.masks[0] > 0.5
    assert 0 < alive.float().mean() < 1
    scores = out.scores[1]
    assert torch.equal(scores.isfinite(), alive)
    width = 1 + 0.5 * float(scores[alive].std(correction=0))  # noise of 1 at the first step
    assert values["_width_1"] == pytest.approx(width, rel=1e-4)
    density = (scores[alive] / width).sigmoid()
    assert values["_rate_1"] == pytest.approx(float((density * (1 - density)).sum() / scores.numel()), rel=1e-4)


@pytest.mark.parametrize(("processes", "parts"), [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1)])
def test_every_image_of_a_step_is_read_once(processes: int, parts: int) -> None:
    recipe = RECIPE.changed(run={"batch_size": 8, "accumulate": parts})
    read: list[list[int]] = [[] for _ in range(STEPS)]
    for rank in range(processes):
        running = phase(DENSE, recipe)
        running.processes = Processes(rank, processes)
        for place, chunk in enumerate(running.chunks(0)):
            read[place // parts] += chunk
    assert [sorted(step) for step in read] == [list(range(8 * step, 8 * step + 8)) for step in range(STEPS)]
    running = phase(DENSE, recipe)
    assert running.chunks(2) == running.chunks(0)[2 * parts :]


def test_a_loss_that_is_not_finite_leaves_the_weights() -> None:
    running = phase(DENSE)
    before = {key: value.clone() for key, value in running.model.state_dict().items()}
    broken = batch()
    broken.images[0] = torch.nan
    assert np.isnan(running.step([broken], 0, 0)["loss"])
    assert all(torch.equal(before[key], value) for key, value in running.model.state_dict().items())
