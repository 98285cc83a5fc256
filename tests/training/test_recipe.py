"""Recipes as files, and what a run changes of them: whatever cannot be meant is refused by name, before anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers import refused_as
from tofe_export.documents.training_recipe import TrainingRecipe
from tofe_export.errors import InputError
from tofe_export.files.names import training_recipes
from tofe_export.training import setup
from tofe_export.training.recipe import ARGUMENTS, config_of, read_recipe

SHIPPED = sorted(training_recipes())
DEFAULT = TrainingRecipe(name="default")


def test_the_recipes_that_users_are_promised() -> None:
    assert {"finetune", "small", "cifar10", "digits", "deit_small_imagenet", "lvvit_s_imagenet"} == set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_recipe_builds_a_network_that_can_meet_its_budget(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe.name == name
    model, _ = setup.build_network(recipe, config_of(recipe), False, None)
    setup.preprocessing_for("images", model.vit).train_transform(recipe.images)
    from tofe_export.training.budget import require_reachable
    from tofe_export.training.optimizer import build_optimizer

    require_reachable(model, recipe.tofe.budget)
    for dense in (True, False):
        build_optimizer(model, recipe, dense)
    for processes in (1, 2, 8):
        setup.require_divisible(recipe, processes)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_recipe_names_its_source(name: str) -> None:
    text = training_recipes()[name].read_text()
    assert text.startswith("# ")
    assert "Source" in text.partition("[")[0]


def test_arguments_and_changes_replace_values() -> None:
    recipe = read_recipe("digits", {"budget": 0.7, "lr": None, "seed": 3}, {"run.precision": "bf16"})
    assert (recipe.tofe.budget, recipe.run.seed, recipe.run.precision) == (0.7, 3, "bf16")
    assert recipe.tofe.lr == read_recipe("digits").tofe.lr


def test_another_backbone_leaves_the_recipe_s_arguments() -> None:
    recipe = read_recipe("digits", {"backbone": "deit_tiny_patch16_224"})
    assert recipe.network.backbone_args == {}
    assert read_recipe("digits", {"backbone": "vit_tiny_patch16_224"}).network.backbone_args["img_size"] == 56
    changed = read_recipe("digits", {}, {"network.backbone_args.depth": 6})
    assert changed.network.backbone_args["depth"] == 6


def test_every_argument_stands_for_a_key() -> None:
    plain = DEFAULT.model_dump()
    for key in ARGUMENTS.values():
        table, _, name = key.partition(".")
        assert name in plain[table]


def test_a_recipe_is_the_same_after_its_way_through_a_state() -> None:
    recipe = read_recipe("small")
    assert TrainingRecipe.model_validate(recipe.to_dict()) == recipe


@pytest.mark.parametrize(
    "changed",
    [
        {"weight_decay": float("nan")},
        {"weight_decay": -0.1},
        {"backbone_lr_scale": -1.0},
        {"lr": float("nan")},
        {"lr": 0.0},
        {"lr": "1e-3"},
        {"dense_lr": float("inf")},
        {"seed": 2**32},
        {"seed": -1},
        {"batch_size": 65_537},
        {"batch_size": 4.5},
        {"budget": 1.5},
        {"budget": 0.0},
        {"epochs": 0},
        {"dense_epochs": -1},
    ],
    ids=str,
)
def test_numbers_that_cannot_be_meant(changed: dict[str, Any]) -> None:
    ((name, value),) = changed.items()
    with pytest.raises(InputError, match=f"^`{name}` is {value!r}, but it must be") as caught:
        read_recipe(DEFAULT, changed)
    assert (caught.value.code, caught.value.details["name"]) == ("out-of-range", name)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"run.precision": "fp64"}, "run.precision"),
        ({"run.accumulate": 3}, "run.accumulate"),
        ({"images.scale": [0.9, 0.3]}, "images.scale"),
        ({"images.scale": [0.0, 1.0]}, "images.scale"),
        ({"optimizer.betas": [0.9, 1.0]}, "optimizer.betas"),
        ({"run.ema_decay": 1.0}, "run.ema_decay"),
        ({"run.limit_val": 0}, "run.limit_val"),
        ({"tofe.temperature_end": 0.0}, "tofe.temperature_end"),
        ({"network.backbone_args.img_size": float("nan")}, "network.backbone_args"),
    ],
    ids=str,
)
def test_values_of_keys_that_cannot_be_meant(changes: dict[str, Any], name: str) -> None:
    with refused_as("out-of-range", name=name):
        read_recipe(DEFAULT, {}, changes)


def test_settings_at_the_edge() -> None:
    edge = {"weight_decay": 0.0, "backbone_lr_scale": 0.0, "seed": 2**32 - 1, "batch_size": 65_536}
    assert read_recipe(DEFAULT, edge).run.seed == 2**32 - 1


@pytest.mark.parametrize("key", ["run.presicion", "precision", "tofe", "network.backbone_args", "a.b.c", "run.seed.x"])
def test_keys_that_there_are_not(key: str) -> None:
    if key == "network.backbone_args":
        assert read_recipe(DEFAULT, {}, {key: {}}).network.backbone_args == {}
        return
    with refused_as("recipe-unknown-key", key=key) as caught:
        read_recipe(DEFAULT, {}, {key: 1})
    assert key != "run.presicion" or "run.precision" in caught.value.next_step


def test_one_value_given_twice() -> None:
    with refused_as("given-twice", key="tofe.lr"):
        read_recipe(DEFAULT, {"lr": 0.1}, {"tofe.lr": 0.2})


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[tofe]\nbugdet = 0.5\n", "recipe-unknown-key"),
        ("[tofe]\nbudget = 1.5\n", "recipe-value"),
        ("[tofe]\nbudget = nan\n", "recipe-value"),
        ("[tofe\n", "not-toml"),
        ('name = "x"\n', "recipe-unknown-key"),
        ("[run]\naccumulate = 3\n", "recipe-value"),
        ("tofe = 3\n", "recipe-value"),
    ],
)
def test_files_that_cannot_be_used(text: str, code: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(InputError) as caught:
        read_recipe(tmp_path / "mine.toml")
    assert caught.value.code == code


def test_no_such_recipe() -> None:
    with refused_as("recipe-unknown", name="finetuned"):
        read_recipe("finetuned")
