"""Calibration in a stream: resumable, bound to what it was made for, and it names what it cannot use."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from tests.helpers import exported_tofe, small_images
from tofe_export.data.images import Batch
from tofe_export.errors import InputError
from tofe_export.precision import calibration
from tofe_export.precision.calibration import CalibrationKey, _read, calibrate, hash_images, read_by
from tofe_export.precision.histogram import Histogram

KEY = CalibrationKey("model", "preprocessing", "data")


@pytest.fixture(scope="module")
def model() -> ir.Model:
    return exported_tofe()


def stream(images: torch.Tensor, size: int = 2) -> Iterator[Batch]:
    for start in range(0, len(images), size):
        part = images[start : start + size]
        yield Batch(part, None, tuple(f"image {start + index}" for index in range(len(part))))


def same(first: dict[str, Histogram], second: dict[str, Histogram]) -> bool:
    return first.keys() == second.keys() and all(
        np.array_equal(first[name].counts, second[name].counts) and first[name].largest == second[name].largest
        for name in first
    )


def test_every_value_that_a_layer_reads_is_counted(model: ir.Model, tmp_path: Path) -> None:
    images = small_images(6)
    found = calibrate(model, stream(images), KEY, tmp_path / "c.npz")
    assert list(found) == read_by(model)
    assert found["images"].largest == float(images.abs().max())
    assert found["images"].counts.sum() == images.numel()
    softmax = next(name for name in found if "Softmax" in name)
    assert 0 < found[softmax].largest <= 1


def test_a_run_that_was_killed_goes_on_from_its_file(
    model: ir.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "_SAVE_EVERY", 2)
    images, cache = small_images(10), tmp_path / "c.npz"
    whole = calibrate(model, stream(images), KEY, tmp_path / "whole.npz")

    def killed() -> Iterator[Batch]:
        for number, batch in enumerate(stream(images)):
            if number == 3:  # after a save and one batch more
                raise KeyboardInterrupt
            yield batch

    with pytest.raises(KeyboardInterrupt):
        calibrate(model, killed(), KEY, cache)
    assert int(np.load(cache)["done"]) == 4
    ran: list[int] = []
    real = calibration._add
    monkeypatch.setattr(calibration, "_add", lambda *given: ran.append(1) or real(*given))
    assert same(calibrate(model, stream(images), KEY, cache), whole)
    assert len(ran) == 3, "the first two batches were not run again"
    ran.clear()
    assert same(calibrate(model, stream(images), KEY, cache), whole)
    assert not ran, "a finished calibration is not repeated"


@pytest.mark.parametrize("field", ["model", "preprocessing", "data"])
def test_a_calibration_of_something_else_is_refused(field: str, model: ir.Model, tmp_path: Path) -> None:
    cache = tmp_path / "c.npz"
    calibrate(model, stream(small_images(2)), KEY, cache)
    before = cache.read_bytes()
    other = CalibrationKey(**{**vars(KEY), field: "another"})
    with pytest.raises(InputError) as caught:
        calibrate(model, stream(small_images(2)), other, cache)
    assert (caught.value.code, caught.value.details["different"]) == ("calibration-of-another", (field,))
    assert cache.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"not a file of numbers"])
def test_a_damaged_calibration_file(content: bytes, model: ir.Model, tmp_path: Path) -> None:
    cache = tmp_path / "c.npz"
    cache.write_bytes(content)
    with pytest.raises(InputError) as caught:
        calibrate(model, stream(small_images(2)), KEY, cache)
    assert (caught.value.code, caught.value.details["path"]) == ("not-calibration", cache)


def test_nan_is_named(tmp_path: Path, model: ir.Model) -> None:
    images = small_images(4)
    images[3, 0, 5, 5] = float("nan")
    with pytest.raises(InputError, match="the image itself is not finite") as caught:
        calibrate(model, stream(images), KEY, tmp_path / "c.npz")
    assert (caught.value.code, caught.value.details["image"]) == ("calibration-not-finite", "image 3")
    broken = exported_tofe()
    weight = broken.graph.initializers["vit.blocks.2.mlp.fc1.weight.T"]
    assert weight.const_value is not None
    values = np.array(weight.const_value.numpy())
    values[0, 0] = np.inf
    weight.const_value = ir.tensor(values, name=weight.name)
    with pytest.raises(InputError, match=r"the value vit\.blocks\.2\.mlp\S+ inside the model"):
        calibrate(broken, stream(small_images(4)), KEY, tmp_path / "c.npz")
    assert not list(tmp_path.iterdir())


def test_images_of_the_wrong_size(model: ir.Model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="takes images of shape"):
        calibrate(model, stream(small_images(2, size=40)), KEY, tmp_path / "c.npz")


def test_the_images_hash_knows_pixels_and_order_but_not_batches() -> None:
    images = small_images(6)
    assert hash_images(stream(images, 2)) == hash_images(stream(images, 5))
    assert hash_images(stream(images)) != hash_images(stream(images.flip(0)))
    assert hash_images(stream(images)) != hash_images(stream(images + 1e-3))


@pytest.mark.parametrize(
    ("entry", "change"),
    [
        ("done", lambda done: np.array(-1)),
        ("names", lambda names: np.array([f"other {name}" for name in names])),
        ("counts", lambda counts: -counts),
        ("counts", lambda counts: counts.astype(str)),
        ("counts", lambda counts: counts.astype(np.uint8)),
        ("counts", lambda counts: counts[:, :-1]),
        ("limits", lambda limits: -limits),
        ("limits", lambda limits: limits * 3),
        ("limits", lambda limits: limits * np.inf),
        ("largest", lambda largest: largest * np.nan),
        ("largest", lambda largest: largest * 4),
    ],
)
def test_a_calibration_with_numbers_that_no_images_give(
    model: ir.Model, tmp_path: Path, entry: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    cache = tmp_path / "c.npz"
    calibrate(model, stream(small_images(2)), KEY, cache)
    with np.load(cache) as content:
        np.savez(cache, **{**content, entry: change(content[entry])})
    with pytest.raises(InputError, match="damaged") as caught:
        calibrate(model, stream(small_images(4)), KEY, cache)
    assert caught.value.code == "not-calibration"


@pytest.mark.parametrize("trouble", ["none", "damaged", "of something else", "a folder", "cannot be written"])
def test_a_cache_that_nobody_asked_for_is_done_without(model: ir.Model, tmp_path: Path, trouble: str) -> None:
    images, cache = small_images(4), tmp_path / "c.npz"
    whole = calibrate(model, stream(images), KEY, tmp_path / "whole.npz")
    if trouble == "damaged":
        cache.write_bytes(b"not an archive")
    elif trouble == "of something else":
        calibrate(model, stream(small_images(2)), CalibrationKey("other", "", ""), cache)
    elif trouble == "a folder":
        cache.mkdir()
    elif trouble == "cannot be written":
        (tmp_path / "file").touch()
        cache = tmp_path / "file" / "c.npz"
    given = None if trouble == "none" else cache
    assert same(calibrate(model, stream(images), KEY, given, asked_for=False), whole)
    if trouble in ("damaged", "of something else"):
        assert int(np.load(cache)["done"]) == 4, "a new one takes its place"


def test_a_calibration_file_with_any_bytes_changed_is_read_or_refused(model: ir.Model, tmp_path: Path) -> None:
    cache, random = tmp_path / "c.npz", np.random.default_rng(0)
    calibrate(model, stream(small_images(2)), KEY, cache)
    whole, refused = cache.read_bytes(), 0
    for _ in range(200):
        damaged = bytearray(whole)
        for place in random.integers(len(whole), size=random.integers(1, 20)):
            damaged[place] = random.integers(256)
        cache.write_bytes(bytes(damaged))
        try:
            _read(cache, KEY, read_by(model))
        except InputError:
            refused += 1
    assert refused > 100
