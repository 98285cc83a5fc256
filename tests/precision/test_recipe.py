"""Recipes: those that come with the program, and every way to get one wrong."""

from pathlib import Path

import pytest

from tofe_export.errors import InputError
from tofe_export.precision.recipe import RangesPart, Recipe, parse_recipe, read_recipe, shipped

PAGE = (Path(__file__).parents[2] / "docs" / "quantization.md").read_text()
GOOD = '[data]\nsource = "digits"\n'


def test_the_shipped_ones_can_be_read_by_name_and_by_path() -> None:
    found = shipped()
    assert {"digits", "imagenet", "matmuls", "conservative"} <= set(found)
    for name, path in found.items():
        recipe = read_recipe(name)
        assert recipe == read_recipe(str(path))
        assert recipe == Recipe.from_dict(recipe.to_dict())
        assert "selector" in recipe.quantize.high_precision


def test_what_is_left_out_has_a_default(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    recipe = read_recipe(str(path))
    assert (recipe.name, recipe.data.source, recipe.ranges.method) == ("mine", "digits", "percentile")
    assert recipe.quantize.kinds == ("qkv", "attention", "proj", "fc1", "fc2")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (GOOD + "sample = 3\n", r"unknown key data\.sample.*mean samples"),
        (GOOD + "[range]\n", r"unknown key range.*mean ranges"),
        ('[data]\nsource = "digits"\nsamples = "many"\n', r"data\.samples is 'many', not a whole number"),
        ('[data]\nsource = "digits"\nsamples = true\n', r"data\.samples is True, not a whole number"),
        ('[data]\nsource = "digits"\nsamples = 0\n', r"data\.samples is 0; it must be 1 or more"),
        ('[data]\nsource = "digits"\nseed = -1\n', r"data\.seed is -1; it must be 0 or more"),
        ("[data]\nsource = 3\n", r"data\.source is 3, not a text"),
        ("[data]\nsamples = 3\n", r"lacks the key data\.source"),
        ("[keep]\nquantile = 0.5\n", r"no table \[data\]"),
        ("data = 3\n", r"data is no table"),
        (GOOD + '[ranges]\nmethod = "mean"\n', r"ranges\.method has 'mean'.*minmax, percentile, entropy"),
        (GOOD + "[ranges]\npercentile = 30\n", r"ranges\.percentile is 30.*above 50"),
        (GOOD + "[ranges]\npercentile = nan\n", r"ranges\.percentile is nan"),
        (GOOD + "[quantize]\nsymmetric = false\n", r"symmetric is false, but TensorRT takes no zero point"),
        (GOOD + '[quantize]\nattention = "int8"\n', r"quantize\.attention is 'int8', not true or false"),
        (GOOD + '[quantize]\nhigh_precision = "head"\n', r"quantize\.high_precision is 'head', not a list of texts"),
        (GOOD + '[quantize]\nhigh_precision = ["heads"]\n', r"quantize\.high_precision has 'heads'.*head"),
        (GOOD + '[quantize]\naround = "bf16"\n', r"quantize\.around has 'bf16'"),
        (GOOD + "[keep]\nquantile = 1.5\n", r"keep\.quantile is 1\.5; it must be between 0 and 1"),
        (
            GOOD + "[quantize]\nattention = false\nhigh_precision = "
            '["patch_embed", "qkv", "proj", "fc1", "fc2", "approximator", "selector", "head"]\n',
            "leaves nothing to quantize",
        ),
        ("data]", "is not a TOML file"),
    ],
)
def test_a_wrong_recipe_names_the_key(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=complaint) as caught:
        read_recipe(str(path))
    assert "wrong.toml" in caught.value.message
    assert caught.value.next_step


def test_no_such_recipe(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no recipe 'digit'.*conservative, digits, imagenet, matmuls"):
        read_recipe("digit")
    with pytest.raises(InputError, match=r"none\.toml does not exist.*digits"):
        read_recipe(str(tmp_path / "none.toml"))


def test_the_defaults_are_the_documented_ones() -> None:
    recipe = parse_recipe({"data": {"source": "digits"}}, Path("mine.toml"))
    assert (recipe.data.samples, recipe.data.seed) == (256, 0)
    assert "| INT8, percentile 99.99 (the default) |" in PAGE
    assert recipe.ranges == RangesPart("percentile", 99.99)
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
