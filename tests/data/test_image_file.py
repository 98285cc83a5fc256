"""Image files of every mode and depth: the same picture as its 8-bit version, or refused with the reason."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, features

from tofe_export.data.image_file import UnreadableImage, endings, formats, read_image
from tofe_export.data.image_log import Reason

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def grey() -> Pixels:
    """Every value of 8 bits."""
    return np.random.default_rng(0).permutation(np.arange(256, dtype=np.uint8)).reshape(16, 16)


@pytest.fixture(scope="module")
def color() -> Pixels:
    return np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def pixels(path: Path) -> NDArray[np.int64]:
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image).astype(np.int64)


def tiff(path: Path, rows: NDArray[np.generic], bits: int, sample_format: int, photometric: int = 1) -> None:
    """An uncompressed grey TIFF as the specification (6.0) has it, by other hands than Pillow's."""
    data = rows.tobytes()
    height, width = rows.shape[0], 16
    entries = [
        (256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 8),
        (277, 3, 1), (278, 4, height), (279, 4, len(data)), (339, 3, sample_format),
    ]  # fmt: skip
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", tag, kind, 1, v) for tag, kind, v in entries
    )
    padding = b"\0" * (len(data) % 2)
    path.write_bytes(
        struct.pack("<2sHI", b"II", 42, 8 + len(data) + len(padding)) + data + padding + directory + bytes(4)
    )


def twelve_bits(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two numbers in three bytes, each filling its 12 bits as `values` fill their 8."""
    wide = np.round(values.astype(np.float64) * 4095 / 255).astype(np.uint16).reshape(len(values), -1, 2)
    first, second = wide[..., 0], wide[..., 1]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=-1)
    return packed.astype(np.uint8).reshape(len(values), -1)


def png16(path: Path, values: NDArray[np.uint16]) -> None:
    Image.fromarray(values).save(path)


GREY: dict[str, tuple[str, Callable[[Path, Pixels], None]]] = {
    "png, 16 bits": ("a.png", lambda path, grey: png16(path, grey.astype(np.uint16) * 257)),
    "png, 16 bits, low byte empty": ("a.png", lambda path, grey: png16(path, grey.astype(np.uint16) * 256)),
    "tiff, 16 bits": ("a.tif", lambda path, grey: png16(path, grey.astype(np.uint16) * 257)),
    "tiff, 16 bits by hand": ("a.tif", lambda path, grey: tiff(path, grey.astype("<u2") * 257, 16, 1)),
    "tiff, 16 bits, white is zero": (
        "a.tif", lambda path, grey: tiff(path, 65535 - grey.astype("<u2") * 257, 16, 1, photometric=0)
    ),
    "tiff, 8 bits, white is zero": ("a.tif", lambda path, grey: tiff(path, 255 - grey, 8, 1, 0)),
    "tiff, 12 bits": ("a.tif", lambda path, grey: tiff(path, twelve_bits(grey), 12, 1)),
    "tiff, floats to 1": ("a.tif", lambda path, grey: tiff(path, grey.astype("<f4") / 255, 32, 3)),
    "tiff, floats to 1, white is zero": (
        "a.tif", lambda path, grey: tiff(path, 1 - grey.astype("<f4") / 255, 32, 3, photometric=0)
    ),
    "tiff, floats to 255": ("a.tiff", lambda path, grey: Image.fromarray(grey).convert("F").save(path)),
    "pgm, 16 bits": (
        "a.pgm", lambda path, grey: path.write_bytes(b"P5 16 16 65535\n" + (grey.astype(">u2") * 257).tobytes())
    ),
    "pgm, 10 bits": (
        "a.pgm",
        lambda path, grey: path.write_bytes(
            b"P5 16 16 1023\n" + np.round(grey.astype(np.float64) * 1023 / 255).astype(">u2").tobytes()
        ),
    ),
    "pfm": ("a.pfm", lambda path, grey: Image.fromarray((grey / 255).astype(np.float32)).save(path)),
    "grey and alpha": (
        "a.png",
        lambda path, grey: Image.merge("LA", [Image.fromarray(grey), Image.new("L", (16, 16), 9)]).save(path),
    ),
    "palette": ("a.gif", lambda path, grey: Image.fromarray(grey).convert("P").save(path)),
}  # fmt: skip


@pytest.mark.parametrize(("name", "write"), GREY.values(), ids=GREY)
def test_a_grey_picture_of_any_depth(
    name: str, write: Callable[[Path, Pixels], None], grey: Pixels, tmp_path: Path
) -> None:
    path = tmp_path / name
    write(path, grey)
    assert abs(pixels(path) - grey[..., None]).max() <= 1


def test_jpeg_2000_of_16_bits(grey: Pixels, tmp_path: Path) -> None:
    if not features.check("jpg_2000"):
        pytest.skip("this Pillow has no JPEG 2000")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "a.jp2", irreversible=False)
    assert abs(pixels(tmp_path / "a.jp2") - grey[..., None]).max() <= 1


def test_a_color_picture_of_16_bits(color: Pixels, tmp_path: Path) -> None:
    wide = color.astype(">u2") * 257
    (tmp_path / "a.ppm").write_bytes(b"P6 16 16 65535\n" + wide.tobytes())
    assert abs(pixels(tmp_path / "a.ppm") - color).max() <= 1


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB"])
def test_a_color_picture_in_any_mode(mode: str, color: Pixels, tmp_path: Path) -> None:
    smooth = Image.fromarray(color).resize((64, 64))
    if mode == "LAB":
        from PIL import ImageCms

        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        changed = ImageCms.profileToProfile(smooth, srgb, lab, outputMode="LAB")
        assert changed is not None
        changed.save(tmp_path / "a.tif", icc_profile=None)
    else:
        smooth.convert(mode).save(tmp_path / "a.tif")
    # The other spaces round each channel of theirs, and LAB twice.
    assert abs(pixels(tmp_path / "a.tif") - np.asarray(smooth).astype(np.int64)).mean() <= {"LAB": 3, "YCbCr": 2}.get(
        mode, 0
    )


def test_black_and_white(grey: Pixels, tmp_path: Path) -> None:
    Image.fromarray(grey >= 128).save(tmp_path / "a.png")
    assert set(np.unique(pixels(tmp_path / "a.png"))) == {0, 255}


def test_transparency_is_dropped_without_a_warning(color: Pixels, tmp_path: Path) -> None:
    image = Image.fromarray(color)
    image.putalpha(Image.fromarray(color[..., 0]))
    image.save(tmp_path / "a.png")
    assert abs(pixels(tmp_path / "a.png") - color).max() == 0
    palette = Image.fromarray(color).quantize(16)
    expected = np.asarray(palette.convert("RGB")).astype(np.int64)
    palette.save(tmp_path / "b.png", transparency=bytes(range(16)))
    assert abs(pixels(tmp_path / "b.png") - expected).max() == 0


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_of_several_frames_the_first(name: str, tmp_path: Path) -> None:
    first, second = Image.new("RGB", (16, 16), (200, 0, 0)), Image.new("RGB", (16, 16), (0, 0, 200))
    first.save(tmp_path / name, save_all=True, append_images=[second])
    assert abs(pixels(tmp_path / name) - [200, 0, 0]).max() <= 3


def test_exif_orientation_is_not_applied(color: Pixels, tmp_path: Path) -> None:
    """As ImageFolder and timm have it; documented."""
    image, exif = Image.fromarray(color[:8]), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    assert read_image(tmp_path / "a.png").size == (16, 8)


def _thin(path: Path) -> None:
    Image.new("RGB", (1, 201)).save(path)


def _alpha_alone(path: Path) -> None:
    image = Image.new("RGB", (16, 16))
    image.putalpha(Image.linear_gradient("L").resize((16, 16)))
    image.save(path)


def _bomb(path: Path) -> None:
    """A header that speaks of 4 gigapixels."""
    path.write_bytes(b"P5 65535 65535 255\n" + bytes(100))


def _postscript(path: Path) -> None:
    """Pillow would hand it to Ghostscript."""
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")


REFUSED: dict[str, tuple[str, Callable[[Path], object], Reason, str]] = {
    "32-bit integers": (
        "a.tif", lambda path: Image.fromarray(np.full((16, 16), 70000, np.int32)).save(path), Reason.DEPTH, "mode I"
    ),
    "signed 16 bits": (
        "a.tif", lambda path: tiff(path, np.full((16, 16), -5, "<i2"), 16, 2), Reason.DEPTH, "mode I"
    ),
    "floats of another range": (
        "a.tif", lambda path: tiff(path, np.full((16, 16), 3.5, "<f4"), 32, 3), Reason.DEPTH, "from 3.5 to 3.5"
    ),
    "floats below 0": (
        "a.tif", lambda path: tiff(path, np.full((16, 16), -0.5, "<f4"), 32, 3), Reason.DEPTH, "from -0.5"
    ),
    "floats that are not finite": (
        "a.tif", lambda path: tiff(path, np.full((16, 16), np.nan, "<f4"), 32, 3), Reason.DEPTH, "nan"
    ),
    "too thin": ("a.png", _thin, Reason.TOO_THIN, "1 x 201 pixels"),
    "alpha alone": ("a.png", _alpha_alone, Reason.TRANSPARENT, "in its transparency alone"),
    "too large": ("a.pgm", _bomb, Reason.TOO_LARGE, "million pixels"),
    "doubles": (
        "a.tif", lambda path: tiff(path, np.zeros((16, 16), "<f8"), 64, 3), Reason.CORRUPT, "Unidentified"
    ),
    "nothing": ("a.png", lambda path: path.write_bytes(b""), Reason.CORRUPT, "Unidentified"),
    "text": ("a.png", lambda path: path.write_text("no image"), Reason.CORRUPT, "Unidentified"),
    "postscript": ("a.png", _postscript, Reason.CORRUPT, "Unidentified"),
    "absent": ("a.png", lambda path: None, Reason.GONE, "not there"),
    "a folder": ("a.png", lambda path: path.mkdir(), Reason.CORRUPT, "not a regular file"),
    "a pipe nobody writes to": ("a.png", os.mkfifo, Reason.CORRUPT, "not a regular file"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "write", "reason", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(
    name: str, write: Callable[[Path], object], reason: Reason, words: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    write(path)
    with pytest.raises(UnreadableImage, match=words) as caught:
        read_image(path)
    assert caught.value.left_out.reason is reason
    assert caught.value.left_out.name == str(path)


def test_no_permission() -> None:
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        path = Path(folder) / "a.png"
        Image.new("RGB", (16, 16)).save(path)
        path.chmod(0)
        Path(folder).chmod(0o755)
        if user == 0:  # root may read everything
            os.seteuid(65534)
        try:
            with pytest.raises(UnreadableImage, match="no permission") as caught:
                read_image(path)
        finally:
            os.seteuid(user)
    assert caught.value.left_out.reason is Reason.PERMISSION


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
    path.write_bytes(b"")
    with pytest.raises(UnreadableImage) as caught:
        read_image(path)
    assert caught.value.left_out.name.encode().endswith(rb"/\xff.png")


def test_what_pillow_reads_is_read_and_nothing_that_runs_other_programs() -> None:
    assert {".jpg", ".jfif", ".png", ".webp", ".tif", ".gif", ".bmp", ".pgm", ".pfm"} <= set(endings())
    assert (".avif" in endings()) == ("AVIF" in Image.OPEN) == ("AVIF" in formats())
    assert not {".eps", ".ps", ".pdf", ".mpg", ".h5", ".wmf"} & set(endings())
    assert list(endings()) == sorted(endings())


@pytest.mark.parametrize(
    ("bits", "value", "expected"),
    [
        # One 255th is 257 of 65535, and 16.06 of 4095: halves are between the two of each pair.
        (16, 0, 0), (16, 128, 0), (16, 129, 1), (16, 32767, 127), (16, 32768, 128), (16, 65406, 254), (16, 65407, 255),
        (12, 8, 0), (12, 9, 1), (12, 2047, 127), (12, 2048, 128), (12, 4086, 254), (12, 4087, 255), (12, 4095, 255),
    ],
)  # fmt: skip
def test_depths_are_rounded_to_the_nearest(bits: int, value: int, expected: int, tmp_path: Path) -> None:
    rows = np.full((2, 16), value, "<u2")
    if bits == 12:
        rows = np.tile(np.array([value >> 4, (value & 15) << 4 | value >> 8, value & 255], np.uint8), (2, 8))  # type: ignore[assignment]
    tiff(tmp_path / "a.tif", rows, bits, 1)
    assert np.unique(pixels(tmp_path / "a.tif")).tolist() == [expected]


@pytest.mark.parametrize(("value", "expected"), [(0.4 / 255, 0), (0.6 / 255, 1), (254.4 / 255, 254), (1.0, 255)])
def test_floats_are_rounded_to_the_nearest(value: float, expected: int, tmp_path: Path) -> None:
    tiff(tmp_path / "a.tif", np.full((2, 16), value, "<f4"), 32, 3)
    assert np.unique(pixels(tmp_path / "a.tif")).tolist() == [expected]
