"""Recipes: those that come with the program, and every way to get one wrong."""

from pathlib import Path

import pytest

from tofe_export.documents.recipe import CalibrationRecipe, RangePolicy
from tofe_export.errors import InputError
from tofe_export.files.names import calibration_recipes
from tofe_export.precision.recipe import parse_recipe, read_recipe, recipe_file

PAGE = (Path(__file__).parents[2] / "docs" / "quantization.md").read_text()
GOOD = '[data]\nsource = "digits"\n'
QUANTIZE = f"{GOOD}[quantize]\n"


def test_the_shipped_ones_can_be_read_by_name_and_by_path() -> None:
    recipes = calibration_recipes()
    assert {"digits", "imagenet", "matmuls", "conservative"} <= set(recipes)
    for name, path in recipes.items():
        recipe = read_recipe(name)
        assert recipe == read_recipe(str(path)) == read_recipe(path) == read_recipe(recipe)
        assert recipe == CalibrationRecipe.model_validate(recipe.to_dict())
        assert "selector" in recipe.quantize.high_precision
        assert (recipe_file(name), recipe_file(path), recipe_file(recipe)) == (None, path, None)


def test_an_omitted_key_has_a_default(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    recipe = read_recipe(str(path))
    assert (recipe.name, recipe.data.source, recipe.ranges.method) == ("mine", "digits", "percentile")
    assert recipe.quantize.kinds == ("qkv", "attention", "proj", "fc1", "fc2")


@pytest.mark.parametrize(
    ("text", "code", "key", "words"),
    [
        (f"{GOOD}sample = 3\n", "recipe-unknown-key", "data.sample", "mean samples"),
        (f"{GOOD}[range]\n", "recipe-unknown-key", "range", "mean ranges"),
        (f'name = "x"\n{GOOD}', "recipe-unknown-key", "name", "Did you mean"),
        ('[data]\nsource = "digits"\nsamples = "many"\n', "recipe-value", "data.samples", "should be a whole number"),
        ('[data]\nsource = "digits"\nsamples = true\n', "recipe-value", "data.samples", "should be a whole number"),
        ('[data]\nsource = "digits"\nsamples = 0\n', "recipe-value", "data.samples", "greater than or equal to 1"),
        ('[data]\nsource = "digits"\nseed = -1\n', "recipe-value", "data.seed", "greater than or equal to 0"),
        ("[data]\nsource = 3\n", "recipe-value", "data.source", "should be a text"),
        ('[data]\nsource = ""\n', "recipe-value", "data.source", "should be a name"),
        ("[data]\nsamples = 3\n", "recipe-missing-key", "data.source", "digits"),
        ("[keep]\nquantile = 0.5\n", "recipe-missing-key", "data", "below [data]"),
        ("data = 3\n", "recipe-value", "data", "should be an object"),
        (f'{GOOD}[ranges]\nmethod = "mean"\n', "recipe-value", "ranges.method", "'minmax', 'percentile' or 'entropy'"),
        (f"{GOOD}[ranges]\npercentile = 30\n", "recipe-value", "ranges.percentile", "greater than 50"),
        (f"{GOOD}[ranges]\npercentile = nan\n", "recipe-value", "ranges.percentile", "is nan"),
        (f"{GOOD}[ranges]\npercentile = 1{'0' * 400}\n", "recipe-value", "ranges.percentile", "should be"),
        (f"{QUANTIZE}symmetric = false\n", "recipe-value", "quantize", "takes no zero point other than 0"),
        (f'{QUANTIZE}attention = "int8"\n', "recipe-value", "quantize.attention", "should be true or false"),
        (f'{QUANTIZE}high_precision = "head"\n', "recipe-value", "quantize.high_precision", "should be a list"),
        (f'{QUANTIZE}high_precision = ["heads"]\n', "recipe-value", "quantize.high_precision.0", "'head'"),
        (f'{QUANTIZE}around = "bf16"\n', "recipe-value", "quantize.around", "'auto', 'fp16' or 'fp32'"),
        (f"{GOOD}[keep]\nquantile = 1.5\n", "recipe-value", "keep.quantile", "less than or equal to 1"),
        (
            f"{QUANTIZE}attention = false\nhigh_precision = "
            '["patch_embed", "qkv", "proj", "fc1", "fc2", "approximator", "selector", "head"]\n',
            "recipe-value",
            "quantize",
            "leaves nothing to quantize",
        ),
    ],
)
def test_a_wrong_recipe_names_the_key(text: str, code: str, key: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_recipe(path)
    error = caught.value
    assert (error.code, error.details["key"], error.details["path"]) == (code, key, path)
    assert words in str(error)
    assert key.removesuffix(".0") in error.message
    assert "wrong.toml" in error.message
    assert error.next_step


def test_no_such_recipe(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="conservative, digits, imagenet, matmuls") as caught:
        read_recipe("digit")
    assert (caught.value.code, caught.value.details["name"]) == ("recipe-unknown", "digit")
    with pytest.raises(InputError, match=r"none\.toml does not exist.*digits"):
        read_recipe(tmp_path / "none.toml")
    (tmp_path / "wrong.toml").write_text("data]")
    with pytest.raises(InputError, match="is not a TOML file"):
        read_recipe(tmp_path / "wrong.toml")


def test_the_defaults_are_the_documented_ones() -> None:
    recipe = parse_recipe({"data": {"source": "digits"}}, Path("mine.toml"))
    assert (recipe.data.samples, recipe.data.seed) == (256, 0)
    assert "| INT8, percentile 99.99 (the default) |" in PAGE
    assert recipe.ranges == RangePolicy(method="percentile", percentile=99.99)
    assert recipe.keep.quantile == 0.5, "the median"


def test_every_key_lands_in_its_own_field() -> None:
    tables = {
        "data": {"source": "a", "samples": 7, "seed": 9},
        "ranges": {"method": "entropy", "percentile": 100},
        "quantize": {
            "per_channel": False,
            "symmetric": True,
            "attention": False,
            "high_precision": ["head", "fc1"],
            "around": "fp32",
            "reduce_range": False,
        },
        "keep": {"quantile": 1},
    }
    recipe = parse_recipe(tables, Path("mine.toml"))
    assert recipe.to_dict() == {"name": "mine", **tables}
    assert recipe.quantize.kinds == ("patch_embed", "qkv", "proj", "fc2", "approximator", "selector")
