"""The digit canvases: deterministic, disjoint, labelled rightly, and with the digit where the box says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedShuffleSplit

from tofe_export.data.digits import CANVAS, Digits, Split, _labels, _members


@given(index=st.integers(0, 359), epoch=st.integers(0, 2**32 - 1), seed=st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_a_picture_depends_on_seed_epoch_and_index_alone(index: int, epoch: int, seed: int) -> None:
    first = Digits("val", seed, epoch).canvas(index)
    Digits("val", seed + 1, epoch).canvas(0)  # other pictures in between change nothing
    again = Digits("val", seed).at_epoch(epoch).canvas(index)
    assert np.array_equal(first.pixels, again.pixels)
    assert (first.label, first.box) == (again.label, again.box)


@pytest.mark.parametrize("other", [Digits("train", 1, 0), Digits("train", 0, 1), Digits("val", 0, 0)])
def test_seed_epoch_and_split_each_change_the_picture(other: Digits) -> None:
    assert not np.array_equal(Digits("train", 0, 0).canvas(3).pixels, other.canvas(3).pixels)


def test_no_digit_is_in_both_splits_and_classes_are_in_proportion() -> None:
    train, held_out = _members("train"), _members("val")
    assert len(train) == 1437
    assert len(held_out) == 360
    assert not set(train) & set(held_out)
    shares = np.bincount(_labels()[held_out], minlength=10) / np.bincount(_labels(), minlength=10)
    assert shares.min() > 0.18
    assert shares.max() < 0.22


@given(index=st.integers(0, 359))
@settings(max_examples=25, deadline=None)
def test_the_box_holds_the_bright_digit(index: int) -> None:
    canvas = Digits("val").canvas(index)
    left, top, right, bottom = canvas.box
    assert 0 <= left < right <= CANVAS
    assert 0 <= top < bottom <= CANVAS
    inside = canvas.pixels[top:bottom, left:right]
    assert inside.max() > 200
    assert inside.mean() > canvas.pixels.mean()  # the digit is the brightest thing of its size


def test_samples_are_rgb_pictures_with_labels() -> None:
    sample = Digits("train")[5]
    assert sample.image.mode == "RGB"
    assert sample.image.size == (CANVAS, CANVAS)
    assert sample.label == Digits("train").canvas(5).label
    with pytest.raises(IndexError):
        Digits("val")[360]


def test_training_digits_are_warped_and_held_out_ones_as_they_were_written() -> None:
    def sizes(split: Split, index: int) -> set[tuple[int, int]]:
        boxes = [Digits(split, 0, epoch).canvas(index).box for epoch in range(8)]
        return {(right - left, bottom - top) for left, top, right, bottom in boxes}

    assert all(len(sizes("val", index)) == 1 for index in (0, 100, 359))
    assert all(len(sizes("train", index)) > 1 for index in (0, 100, 359))


def test_the_split_is_fixed_for_ever() -> None:
    """scikit-learn's other way to the same split; by another a network would be judged on what it was trained on."""
    by_class = StratifiedShuffleSplit(n_splits=1, test_size=360, random_state=0)
    ((train, held_out),) = by_class.split(_labels()[:, None], _labels())
    assert np.array_equal(_members("train"), np.sort(train))
    assert np.array_equal(_members("val"), np.sort(held_out))
