"""Keep counts by hand, learned, from images, or from a calibration recipe."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers import small_tofe
from tofe_export.checkpoints.checkpoint import Checkpoint
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.errors import InputError
from tofe_export.tuning.keep_counts import choose_keep, counts_of, quantile_counts


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    model = small_tofe()
    return Checkpoint(model, (0.5, 0.3, 0.2), Preprocessing.of_backbone(model.vit))


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "few.toml"
    path.write_text('[data]\nsource = "digits"\nsamples = 12\nseed = 3\n[keep]\nquantile = 1.0\n')
    return str(path)


def test_a_recipe_says_which_images_and_which_quantile(checkpoint: Checkpoint, recipe: str) -> None:
    most = choose_keep(checkpoint, keep_from=recipe)
    least = choose_keep(checkpoint, keep_from=recipe, keep_quantile=0.0)
    assert all(low <= high for low, high in zip(least.counts, most.counts, strict=True))
    assert least.counts != most.counts
    assert most.source == "digits quantile 1.0, recipe few"
    assert least.source == "digits quantile 0.0, recipe few"


def test_a_recipe_draws_its_images_by_its_seed(checkpoint: Checkpoint, recipe: str) -> None:
    assert choose_keep(checkpoint, keep_from=recipe) == choose_keep(checkpoint, keep_from=Path(recipe))
    first = choose_keep(checkpoint, keep_from=recipe, keep_samples=1)
    path = Path(recipe)
    text = path.read_text()
    others = set()
    for seed in range(5):
        path.write_text(text.replace("seed = 3", f"seed = {seed}"))
        others.add(choose_keep(checkpoint, keep_from=recipe, keep_samples=1))
    assert first in others
    assert len(others) > 1


def test_the_other_sources(checkpoint: Checkpoint) -> None:
    given, learned = choose_keep(checkpoint, (9, 4, 2)), choose_keep(checkpoint)
    assert (given.counts, given.source) == ((9, 4, 2), "given")
    assert (learned.counts, learned.source) == ((8, 5, 3), "learned")
    assert choose_keep(checkpoint, (0.5, 0.3, 0.2)).counts == (8, 5, 3)
    assert choose_keep(checkpoint, keep_from="photos", keep_samples=2).source == "photos quantile 0.5"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"keep": (9, 4, 2), "keep_from": "photos"}, "keep-conflict"),
        ({"keep_from": "photos", "keep_quantile": 2}, "keep-quantile-range"),
        ({"keep_quantile": 0.5}, "keep-without-images"),
        ({"keep": (9, 4, 2), "keep_samples": 5}, "keep-without-images"),
        ({"keep": (9, 0.5, 2)}, "keep-mixed"),
        ({"keep": (1.5, 0.5, 0.5)}, "keep-mixed"),
        ({"keep": (0.0, 0.5, 0.5)}, "keep-mixed"),
    ],
)
def test_arguments_that_contradict_each_other(checkpoint: Checkpoint, arguments: dict[str, Any], code: str) -> None:
    with pytest.raises(InputError) as caught:
        choose_keep(checkpoint, **arguments)
    assert caught.value.code == code


def test_whole_numbers_are_counts_and_fractions_are_shares() -> None:
    assert counts_of((1, 1, 1), 16) == (1, 1, 1)
    assert counts_of((1.0, 1.0, 1.0), 16) == (16, 16, 16)
    assert counts_of(np.array([9, 4, 2]), 16) == (9, 4, 2)
    assert counts_of(np.array([0.5, 0.25, 0.01]), 16) == (8, 4, 1)
    assert counts_of((), 16) == ()


def test_images_say_nothing_of_a_dense_network() -> None:
    model = small_tofe(selector="none")
    dense = Checkpoint(model, (), Preprocessing.of_backbone(model.vit))
    assert choose_keep(dense).counts == ()
    assert choose_keep(dense).source == "dense"
    with pytest.raises(InputError) as caught:
        choose_keep(dense, keep_from="digits")
    assert caught.value.code == "keep-of-dense"


@pytest.mark.parametrize(
    ("counts", "quantile", "expected"),
    [
        ([[3, 8], [4, 9]], 0.5, (4, 9)),  # 3.5 and 8.5: a token too many loses nothing
        ([[1, 5], [2, 6], [3, 7]], 0.5, (2, 6)),
        ([[10, 1], [20, 1]], 0.25, (13, 1)),  # 12.5
        ([[0, 0]], 1.0, (1, 1)),
    ],
)
def test_the_quantile_of_counts_by_hand(counts: list[list[int]], quantile: float, expected: tuple[int, ...]) -> None:
    assert quantile_counts(counts, quantile) == expected


def test_a_recipe_whose_images_are_not_here_names_the_argument(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[data]\nsource = "no such folder"\n')
    with pytest.raises(InputError) as caught:
        choose_keep(checkpoint, keep_from=path)
    error = caught.value
    assert (error.code, error.details["source"]) == ("recipe-images-missing", "no such folder")
    assert error.next_step == "Add `keep_from=FOLDER`."
