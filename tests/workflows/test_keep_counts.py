"""Keep counts by hand, learned, from images, or from a calibration recipe."""

from pathlib import Path

import pytest

from tests.helpers import small_tofe
from tofe_export.checkpoints.checkpoint import Checkpoint
from tofe_export.data.image_log import ImageLog
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.errors import InputError
from tofe_export.workflows.keep_counts import KeepOptions, choose_keep, quantile_counts
from tofe_export.workflows.progress import silent


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    model = small_tofe()
    return Checkpoint(model, (0.5, 0.3, 0.2), Preprocessing.of_backbone(model.vit))


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "few.toml"
    path.write_text('[data]\nsource = "digits"\nsamples = 12\nseed = 3\n[keep]\nquantile = 1.0\n')
    return str(path)


def choose(checkpoint: Checkpoint, options: KeepOptions) -> tuple[int, ...]:
    return choose_keep(checkpoint, options, ImageLog(), silent)


def test_a_recipe_says_which_images_and_which_quantile(checkpoint: Checkpoint, recipe: str) -> None:
    most = choose(checkpoint, KeepOptions(source=recipe))
    least = choose(checkpoint, KeepOptions(source=recipe, quantile=0.0))
    assert all(low <= high for low, high in zip(least, most, strict=True))
    assert least != most
    assert KeepOptions(source=recipe).described(checkpoint) == "digits quantile 1.0, recipe few"
    assert KeepOptions(source=recipe, quantile=0.5).described(checkpoint) == "digits quantile 0.5, recipe few"


def test_a_recipe_draws_its_images_by_its_seed(checkpoint: Checkpoint, recipe: str) -> None:
    assert choose(checkpoint, KeepOptions(source=recipe)) == choose(checkpoint, KeepOptions(source=recipe))
    one = KeepOptions(source=recipe, samples=1)
    first = choose(checkpoint, one)
    path = Path(recipe)
    text = path.read_text()
    others = set()
    for seed in range(5):
        path.write_text(text.replace("seed = 3", f"seed = {seed}"))
        others.add(choose(checkpoint, one))
    assert first in others
    assert len(others) > 1


def test_the_other_sources(checkpoint: Checkpoint) -> None:
    assert choose(checkpoint, KeepOptions((9, 4, 2))) == (9, 4, 2)
    assert choose(checkpoint, KeepOptions()) == (8, 5, 3)
    assert KeepOptions((9, 4, 2)).described(checkpoint) == "given"
    assert KeepOptions().described(checkpoint) == "learned"
    assert KeepOptions(source="photos").described(checkpoint) == "photos quantile 0.5"
    with pytest.raises(InputError, match="both given"):
        choose(checkpoint, KeepOptions((9, 4, 2), "photos"))
    with pytest.raises(InputError, match="not between 0 and 1"):
        choose(checkpoint, KeepOptions(source="photos", quantile=2))


@pytest.mark.parametrize("options", [KeepOptions(quantile=0.5), KeepOptions((9, 4, 2), samples=5)])
def test_a_quantile_of_no_images(checkpoint: Checkpoint, options: KeepOptions) -> None:
    with pytest.raises(InputError, match="choose from images"):
        choose(checkpoint, options)


def test_images_say_nothing_of_a_dense_network() -> None:
    model = small_tofe(selector="none")
    dense = Checkpoint(model, (), Preprocessing.of_backbone(model.vit))
    assert choose(dense, KeepOptions()) == ()
    with pytest.raises(InputError, match="This network is dense"):
        choose(dense, KeepOptions(source="digits"))


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


def test_a_recipe_whose_images_are_not_here_names_the_option(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[data]\nsource = "no such folder"\n')
    with pytest.raises(InputError, match="The recipe mine takes images that are not here") as caught:
        choose(checkpoint, KeepOptions(source=str(path)))
    assert caught.value.next_step == "Give the images themselves: --keep-from FOLDER."
