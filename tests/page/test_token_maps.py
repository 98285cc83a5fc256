"""Token maps say what the deployed path did, and the pictures show it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers import small_images, small_tofe
from tofe_export.checkpoints.checkpoint import Checkpoint
from tofe_export.data.images import Batch
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.errors import InputError
from tofe_export.model.fixed_path import FixedPath
from tofe_export.page.drawing import write_figure, write_png
from tofe_export.page.gallery import most_maps, stage_picture, token_map_figure
from tofe_export.page.pictures import REUSED
from tofe_export.page.token_maps import TokenMap, reused, summarize_reuse, to_pixels, token_maps

KEEP = (8, 5, 6)


def checkpoint(approximator: str = "bottleneck") -> Checkpoint:
    model = small_tofe(approximator=approximator)
    return Checkpoint(model, (0.5, 0.3, 0.4), Preprocessing(32, 32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))


def batch(images: int = 4) -> Batch:
    return Batch(small_images(images), torch.zeros(images, dtype=torch.int64), tuple(f"i{n}" for n in range(images)))


def by_hand(kept: np.ndarray, reused: np.ndarray, pixels: np.ndarray) -> TokenMap:
    return TokenMap("hand", pixels, kept, reused, (1,) * len(kept), 0, 0, None)


def test_reused_means_frozen_by_any_earlier_stage() -> None:
    kept = torch.tensor([[[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 1, 0]]]).bool()
    assert reused(kept).int().tolist() == [[[0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 1, 0]]]


def test_maps_agree_with_the_selector_of_the_first_stage() -> None:
    maps = token_maps(checkpoint(), KEEP, [batch()])
    model = checkpoint().model
    with torch.no_grad():
        fixed = model.forward_fixed(batch().images, FixedPath(KEEP))
    for number, one in enumerate(maps):
        assert one.kept.sum(axis=(1, 2)).tolist() == list(KEEP)
        best = fixed.stages[0].scores[number].argsort(descending=True)[: KEEP[0]]
        assert set(np.flatnonzero(one.kept[0])) == set(best.tolist()), "the highest scores, in spatial order"
        assert one.predicted == int(fixed.logits[number].argmax())
        assert not one.reused[0].any()
        assert not (one.reused & ~one.kept).any()


def test_threshold_counts_are_each_image_s_own() -> None:
    maps = token_maps(checkpoint(), KEEP, [batch(8)])
    alone = checkpoint().model.forward_threshold(batch(8).images)
    assert [one.counts for one in maps] == [
        tuple(int((trace.scores > 0).sum()) for trace in single.stages) for single in alone
    ]
    assert len({one.counts for one in maps}) > 1, "the images were chosen to differ"


def test_discarded_tokens_never_come_back_and_full_stages_keep_all() -> None:
    discards = checkpoint("discard")
    assert summarize_reuse(discards.model, (8, 5, 3), [batch()]).ever == 0
    everything = token_maps(checkpoint(), (16, 16, 16), [batch(1)])[0]
    assert everything.kept.all()
    assert not everything.reused.any()


def test_summary_is_the_mean_of_the_maps() -> None:
    maps = token_maps(checkpoint(), KEEP, [batch(8)])
    summary = summarize_reuse(checkpoint().model, KEEP, [batch(8)])
    assert summary.images == 8
    for stage, mean in enumerate(summary.per_stage):
        assert mean == pytest.approx(np.mean([one.reused[stage].sum() for one in maps]))
    assert summary.ever == pytest.approx(np.mean([one.reused.any(axis=0).sum() for one in maps]))
    assert summary.ever > 0, "nothing was reused, so nothing was tested"
    with pytest.raises(InputError) as caught:
        summarize_reuse(checkpoint().model, KEEP, [])
    assert caught.value.code == "no-images"


def test_pixels_come_back_from_the_normalized_input() -> None:
    size = Preprocessing(8, 8, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert np.array_equal(to_pixels(size(Image.fromarray(pixels)), size), pixels)


def test_frozen_is_veiled_kept_is_clear_reused_is_framed() -> None:
    kept = np.array([[[True, False], [True, False]]])
    again = np.array([[[False, False], [True, False]]])
    red = np.zeros((16, 16, 3), dtype=np.uint8)
    red[..., 0] = 200
    picture = np.asarray(stage_picture(by_hand(kept, again, red), 0))
    side = picture.shape[0]
    middle, quarter = side * 3 // 4, side // 4
    assert picture[quarter, quarter].tolist() == [200, 0, 0], "kept"
    assert np.ptp(picture[quarter, middle].astype(int)) < 5, "frozen: the colour is gone"
    assert picture[middle, quarter].tolist() == [200, 0, 0], "reused: clear inside"
    assert tuple(picture[side // 2, 0]) == tuple(picture[side - 1, side // 2 - 1]) == REUSED
    framed = (picture == REUSED).all(axis=2)
    assert not framed[: side // 2].any()
    assert not framed[:, side // 2 :].any()


def test_grids_and_images_need_not_be_square(tmp_path: Path) -> None:
    kept = np.ones((2, 3, 5), dtype=bool)
    kept[0, 1, 1] = False
    wide = np.zeros((32, 96, 3), dtype=np.uint8)
    token_map = by_hand(kept, kept & ~kept[:1], wide)
    assert stage_picture(token_map, 1).size == (768, 256)
    png, svg = write_figure(token_map_figure([token_map]), tmp_path / "wide")
    with Image.open(png) as image:
        assert image.width > 1.5 * image.height
    assert svg.stat().st_size > 1000


def test_the_figure_is_one_png_and_the_same_each_time(tmp_path: Path) -> None:
    maps = token_maps(checkpoint(), KEEP, [batch(4)])
    for name in ("a.png", "b.png"):
        write_png(token_map_figure(maps, tuple("abcde"), columns=2), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG"
        assert image.width > 1500, "twice a screen's pixels"


@pytest.mark.slow
def test_as_many_high_images_as_fit_are_drawn(tmp_path: Path) -> None:
    """A PNG of matplotlib has fewer than 2^16 rows of pixels; above that it raises."""
    kept = np.ones((1, 16, 1), dtype=bool)
    high = by_hand(kept, np.zeros_like(kept), np.zeros((256, 16, 3), np.uint8))
    most = most_maps(256, 16)
    assert 1 < most < 24
    write_png(token_map_figure([high] * most), tmp_path / "high.png")
