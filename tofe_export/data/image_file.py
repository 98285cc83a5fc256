"""An image file as 8-bit RGB, whatever its mode and depth; every image of the program is opened here.

* Numbers of 16 bits (12 in a TIFF) become 8 by their depth, floats by their range: 0..1, or whole numbers to 255.
  Other depths have no range that could be known, so such an image is refused.
* Of several frames the first counts. Transparency is dropped and EXIF orientation is not applied, as torchvision's
  ImageFolder and timm do it: the model sees what it was trained on.
* Formats that Pillow only passes on, to Ghostscript above all, are not read.
"""

from __future__ import annotations

import contextlib
import functools
import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile

from tofe_export.data.image_log import LeftOut, Reason
from tofe_export.errors import InputError
from tofe_export.files.names import readable

_COMMON = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".jp2", ".ppm", ".pgm")
_NOT_READ = frozenset({"EPS", "MPEG", "IPTC"})  # Ghostscript would run; no picture
_SIXTEEN_BITS = frozenset({"PNG", "PPM", "JPEG2000", "TIFF"})  # formats that fill all 16, or say how many
_LONGEST = 200  # times as long as wide: resized to a model's input, more would take gigabytes
_NEXT_STEPS = {Reason.GONE: "Check its name.", Reason.PERMISSION: "Check its permissions."}
_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # TIFF


class UnreadableImage(InputError):  # noqa: N818 - what it is, not only that it went wrong
    """A file that cannot be taken for an image. Loops that can go on without it note `left_out` and go on."""

    def __init__(self, left_out: LeftOut) -> None:
        why = left_out.detail or left_out.reason.value
        super().__init__(
            f"{left_out.name} cannot be read as an image ({why}).",
            _NEXT_STEPS.get(left_out.reason, "Remove or replace it."),
            code="unreadable-image",
            path=left_out.name,
            reason=left_out.reason,
        )
        self.left_out = left_out

    def __reduce__(self) -> tuple[type[UnreadableImage], tuple[LeftOut]]:  # so that it survives a worker process
        return UnreadableImage, (self.left_out,)


@functools.cache
def formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read, sorted."""
    Image.init()
    stubs = {
        name
        for name, (opener, _) in Image.OPEN.items()
        if isinstance(opener, type) and issubclass(opener, ImageFile.StubImageFile)
    }
    return tuple(sorted(set(Image.OPEN) - stubs - _NOT_READ))


@functools.cache
def endings() -> tuple[str, ...]:
    """Endings of the files that are read, with their point, in lower case, sorted."""
    known = set(formats())
    return tuple(sorted(ending for ending, name in Image.registered_extensions().items() if name in known))


def common_endings() -> str:
    """The endings that people use, for a message."""
    return " ".join(ending for ending in _COMMON if ending in endings())


def read_image(path: Path) -> Image.Image:
    """The file decoded to RGB.

    Raises:
        UnreadableImage: it cannot be decoded, or not so that it surely looks as it should.
    """
    with _refusing(readable(path)):
        if path.exists() and not path.is_file():  # a FIFO would wait for a writer
            raise _Refused(Reason.CORRUPT, "not a regular file")
        return _decoded(path)


def read_stored(content: Callable[[], bytes], name: str) -> Image.Image:
    """An image file that lies within another file, decoded to RGB.

    Args:
        content: returns its bytes; errors of the file system say as much about the image as they do in `read_image`.
        name: what the user finds it by.

    Raises:
        UnreadableImage: as in `read_image`.
    """
    with _refusing(name):
        return _decoded(io.BytesIO(content()))


def _decoded(file: Path | BinaryIO) -> Image.Image:
    # What Pillow warns of is either read all the same or refused.
    with warnings.catch_warnings(action="ignore"), Image.open(file, formats=formats()) as image:
        return _rgb(image)


@contextlib.contextmanager
def _refusing(name: str) -> Iterator[None]:
    """Whatever goes wrong with the image called `name` becomes an UnreadableImage."""
    try:
        yield
        return
    except _Refused as refused:
        left_out = LeftOut(name, refused.reason, str(refused))
    except PermissionError:
        left_out = LeftOut(name, Reason.PERMISSION, "no permission to read it")
    except FileNotFoundError:
        left_out = LeftOut(name, Reason.GONE, "not there")
    except (Image.DecompressionBombError, MemoryError):
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        left_out = LeftOut(name, Reason.TOO_LARGE, f"more than {limit / 1e6:.0f} million pixels")
    except Exception as error:  # decoders raise whatever they like: OSError, SyntaxError, struct.error, ...
        left_out = LeftOut(name, Reason.CORRUPT, f"cannot be decoded: {type(error).__name__}")
    raise UnreadableImage(left_out)


class _Refused(Exception):  # noqa: N818 - becomes an UnreadableImage
    def __init__(self, reason: Reason, why: str) -> None:
        super().__init__(why)
        self.reason = reason


def _rgb(image: Image.Image) -> Image.Image:
    if max(image.size) > _LONGEST * min(image.size):
        width, height = image.size
        raise _Refused(Reason.TOO_THIN, f"{width} x {height} pixels")
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(image)).convert("RGB")
    if image.mode in ("PA", "RGBa") or (image.mode == "P" and "transparency" in image.info):
        image = image.convert("RGBA")
    elif image.mode == "La":
        image = image.convert("LA")
    rgb = image.convert("RGB")
    if image.mode in ("RGBA", "LA") and _varies(image.getchannel("A")) and not _varies(rgb):
        raise _Refused(Reason.TRANSPARENT, "one color; its picture is in its transparency alone")
    return rgb


def _varies(image: Image.Image) -> bool:
    pixels = np.asarray(image).reshape(-1, len(image.getbands()))
    return bool((pixels != pixels[0]).any())


def _eight_bits(image: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """[height, width] of a gray image with more than 8 bits a pixel."""
    numbers = np.asarray(image)
    of = f"of a {image.format} file"
    tags = getattr(image, "tag_v2", {})
    if image.mode == "F":
        low, high = float(numbers.min()), float(numbers.max())
        if low >= 0 and high <= 1:
            unit = numbers
        elif low >= 0 and high <= 255 and bool((numbers == numbers.round()).all()):
            unit = numbers / 255
        else:
            raise _Refused(Reason.DEPTH, f"floats {of} from {low:g} to {high:g}; 0 to 1 is read")
    elif image.format not in _SIXTEEN_BITS or (image.format == "TIFF" and image.mode == "I"):
        raise _Refused(Reason.DEPTH, f"mode {image.mode} {of}, whose range is not known")
    else:
        bits = int(tags[_BITS][0]) if _BITS in tags else 16
        unit = numbers / np.float64(2**bits - 1)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow turns these over in 8 bits only
        unit = 1 - unit
    return (unit * 255).round().clip(0, 255).astype(np.uint8)
