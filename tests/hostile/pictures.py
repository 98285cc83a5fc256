"""Images and folders of images that no camera makes."""

from __future__ import annotations

import io
import os
import shutil
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from tests.hostile.case import FINE, REFUSED, Case, Skip, Surroundings
from tests.hostile.commands import basic
from tests.hostile.kit import is_root, make_images

_RUNS = FINE | REFUSED
Make = Callable[[Path], object]
"""Makes what is wrong in a folder of images."""


def _pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, shape).astype(np.uint8)


def _image(mode: str, size: tuple[int, int] = (40, 40)) -> Image.Image:
    return Image.fromarray(_pixels(size[1], size[0], 3)).convert(mode)


def _save(name: str, make: Callable[[], Image.Image], **options: object) -> Make:
    return lambda folder: make().save(folder / name, **options)


def _bytes(name: str, content: bytes | Callable[[], bytes]) -> Make:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content())


def _encoded(kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    _image("RGB").save(content, kind, **options)
    return content.getvalue()


def _png(width: int, height: int, depth: int = 8, color: int = 2, data: bytes = b"", extra: bytes = b"") -> bytes:
    """A PNG that says what it likes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


def _text_bomb() -> bytes:
    packed = b"Comment\0\0" + zlib.compress(bytes(300 << 20))
    chunk = struct.pack(">I", len(packed)) + b"zTXt" + packed + struct.pack(">I", zlib.crc32(b"zTXt" + packed))
    return _png(2, 2, data=bytes(14), extra=chunk)


def _sixteen(folder: Path) -> None:
    Image.fromarray(np.linspace(0, 65535, 1600).astype(np.uint16).reshape(40, 40)).save(folder / "deep.png")


def _floating(folder: Path) -> None:
    Image.fromarray(np.random.default_rng(0).random((40, 40)).astype(np.float32)).save(folder / "float.tif")


def _not_numbers(folder: Path) -> None:
    Image.fromarray(np.full((40, 40), np.nan, np.float32)).save(folder / "nan.tif")


def _animated(kind: str) -> Make:
    def make(folder: Path) -> None:
        frames = [_image("RGB") for _ in range(3)]
        frames[0].save(folder / f"moving.{kind}", save_all=True, append_images=frames[1:])

    return make


def _oriented(folder: Path) -> None:
    image = _image("RGB", (40, 60))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(folder / "turned.jpg", exif=exif)


def _bad_exif(folder: Path) -> None:
    (folder / "exif.jpg").write_bytes(_encoded("JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(64)))


def _bad_profile(folder: Path) -> None:
    _image("RGB").save(folder / "profile.png", icc_profile=b"no profile" * 100)


def _fifo(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")


def _socket(folder: Path) -> None:
    here = os.open(".", os.O_RDONLY)
    try:  # the name of a socket is short, so it is made where it lies
        os.chdir(folder)
        with socket.socket(socket.AF_UNIX) as found:
            found.bind("plug.png")
    finally:
        os.fchdir(here)
        os.close(here)


def _device(major: int, minor: int) -> Make:
    def make(folder: Path) -> None:
        try:
            os.mknod(folder / "device.png", 0o666 | 0o020000, os.makedev(major, minor))
        except PermissionError as error:
            raise Skip("only root makes devices") from error

    return make


def _link(name: str, target: str) -> Make:
    return lambda folder: (folder / name).symlink_to(target)


def _locked(folder: Path) -> None:
    if is_root():
        raise Skip("root reads everything")
    _image("RGB").save(folder / "locked.png")
    (folder / "locked.png").chmod(0)


def _sparse(folder: Path) -> None:
    with (folder / "huge.png").open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        file.truncate(1 << 40)


PICTURES: dict[str, Make] = {
    "no bytes": _bytes("empty.png", b""),
    "one byte": _bytes("one.png", b"\x89"),
    "text": _bytes("text.jpg", b"not an image"),
    "a JPEG cut in half": _bytes("half.jpg", _encoded("JPEG")[:600]),
    "a PNG cut in half": _bytes("half.png", _encoded("PNG")[:2000]),
    "a JPEG named PNG": _bytes("liar.png", _encoded("JPEG")),
    "a PDF named JPEG": _bytes("liar.jpg", b"%PDF-1.4\n1 0 obj<<>>endobj\n"),
    "an SVG named PNG": _bytes("liar.png", b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>"),
    "PostScript named PNG": _bytes(
        "liar.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(touch CANARY) run\n"
    ),
    "a PNG of 2^31 pixels a side": _bytes("big.png", _png(2**31 - 1, 2**31 - 1)),
    "a PNG of 60,000 pixels a side": _bytes("bomb.png", _png(60_000, 60_000)),
    "a PNG of 12,000 pixels a side": _bytes("bomb.png", lambda: _png(12_000, 12_000, 1, 0, bytes(1501 * 12_000))),
    "a PNG of no pixels": _bytes("none.png", _png(0, 0)),
    "a PNG of 3 bits": _bytes("odd.png", _png(4, 4, 3, 2)),
    "a PNG with a bomb in its text": _bytes("text.png", _text_bomb),
    "a PNG with a wrong checksum": _bytes("sum.png", _encoded("PNG").replace(b"IDAT", b"IDAt", 1)),
    "16 bits": _sixteen,
    "32 bits of whole numbers": _save("whole.tif", lambda: _image("I")),
    "floating point": _floating,
    "pixels that are not numbers": _not_numbers,
    "CMYK": _save("cmyk.jpg", lambda: _image("CMYK")),
    "CMYK of TIFF": _save("cmyk.tif", lambda: _image("CMYK")),
    "YCbCr of TIFF": _save("ycc.tif", lambda: _image("YCbCr")),
    "LAB of TIFF": _save("lab.tif", lambda: _image("LAB")),
    "one bit": _save("bit.png", lambda: _image("1")),
    "a palette": _save("palette.png", lambda: _image("P")),
    "a palette with transparency": _save("clear.png", lambda: _image("P"), transparency=bytes(range(256))),
    "gray with alpha": _save("la.png", lambda: _image("LA")),
    "all of it transparent": _save("clear.png", lambda: Image.new("RGBA", (40, 40), (255, 0, 0, 0))),
    "1 x 1": _save("dot.png", lambda: _image("RGB", (1, 1))),
    "1 x 10,000": _save("line.png", lambda: _image("RGB", (1, 10_000))),
    "10,000 x 1": _save("line.png", lambda: _image("RGB", (10_000, 1))),
    "65,500 x 1": _save("line.jpg", lambda: _image("RGB", (65_500, 1))),
    "an animated GIF": _animated("gif"),
    "an animated WebP": _animated("webp"),
    "a TIFF of pages": _animated("tif"),
    "turned by EXIF": _oriented,
    "EXIF that lies": _bad_exif,
    "a color profile that is none": _bad_profile,
    "a FIFO": _fifo,
    "a socket": _socket,
    "/dev/zero": _device(1, 5),
    "/dev/full": _device(1, 7),
    "a folder named like an image": lambda folder: (folder / "folder.png").mkdir(),
    "a link to nothing": _link("gone.png", "nowhere.png"),
    "a link to itself": _link("loop.png", "loop.png"),
    "a link to /dev/zero": _link("zero.png", "/dev/zero"),
    "a file nobody may read": _locked,
    "a sparse file of a tebibyte": _sparse,
    "an ending in capitals": _save("LOUD.PNG", lambda: _image("RGB"), format="PNG"),
    "AVIF": _bytes("new.avif", b"\0\0\0\x20ftypavif" + bytes(100)),
}
_EVERYWHERE = (
    *("no bytes", "a JPEG cut in half", "a PNG of 60,000 pixels a side", "16 bits", "pixels that are not numbers"),
    *("a FIFO", "a socket", "/dev/zero", "a link to itself", "a folder named like an image", "a link to /dev/zero"),
    *("a color profile that is none", "1 x 10,000", "a sparse file of a tebibyte", "EXIF that lies"),
)
# verb, name of the case, options, in whose folder the picture lies
_READERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "parity check": ("onnx", ()),
    "keep counts": ("onnx", ("--keep-from", "images")),
    "verify": ("verify", ()),
    "calibration": ("quantize", ()),
    "optimizing": ("optimize", ()),
    "tuning": ("tune", ()),
    "training": ("train", ()),
    "report": ("report", ("--data", "images")),
    "engine": ("trt", ("--int8", "--recipe", "few.toml")),
}

_SLOW = ("calibration", "report", "engine", "optimizing", "tuning")
_TELLING = ("empty", "only what is broken", "classes that are not UTF-8", "links that go round", "a FIFO instead")


def _empty(work: Path) -> None:
    for path in sorted((work / "images").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def _only(make: Make) -> Make:
    """A flat folder with nothing else."""

    def prepare(work: Path) -> None:
        _empty(work)
        make(work / "images")

    return prepare


def _instead(make: Callable[[Path], object]) -> Make:
    """Something else of the folder's name."""

    def prepare(work: Path) -> None:
        shutil.rmtree(work / "images")
        make(work / "images")

    return prepare


def _loops(work: Path) -> None:
    (work / "images" / "dark" / "again").symlink_to("..")
    (work / "images" / "loop").symlink_to(".")
    (work / "images" / "self").symlink_to("self")


def _deep(work: Path) -> None:
    folder = work / "images"
    for _ in range(200):
        folder /= "deeper"
        folder.mkdir()
    _image("RGB").save(folder / "lost.png")


def _classes(*names: str | bytes) -> Make:
    def prepare(work: Path) -> None:
        _empty(work)
        for name in names:
            make_images(work / "images", (os.fsdecode(name),), 3)

    return prepare


def _shut(work: Path) -> None:
    if is_root():
        raise Skip("root reads everything")
    (work / "images" / "dark").chmod(0)


FOLDERS: dict[str, Make] = {
    "empty": _empty,
    "only empty classes": lambda work: [path.unlink() for path in (work / "images").rglob("*.png")],
    "one class without images": lambda work: (work / "images" / "empty").mkdir(),
    "a single image": _only(_save("one.png", lambda: _image("RGB"))),
    "a single class": lambda work: shutil.rmtree(work / "images" / "light"),
    "a class of one image": lambda work: make_images(work / "images", ("rare",), 1),
    "only what is broken": _only(lambda folder: [(folder / f"{n}.png").write_bytes(b"x") for n in range(5)]),
    "every held-out image broken": lambda work: [p.write_bytes(b"") for p in (work / "images").rglob("5.png")],
    "links that go round": _loops,
    "200 folders deep": _deep,
    "hidden folders and files": lambda work: make_images(work / "images", (".git", "._dark"), 2),
    "images beside class folders": lambda work: make_images(work / "images", (), 4),
    "train without val": lambda work: (work / "images" / "light").rename(work / "images" / "train"),
    "train and val of other classes": lambda work: [
        make_images(work / "images" / "train", ("a", "b"), 2), make_images(work / "images" / "val", ("b", "c"), 2)
    ],
    "train and val that are empty": lambda work: [(work / "images" / name).mkdir() for name in ("train", "val")],
    "classes of markup": _classes("[v2]", "[red]", ":cat:", "$x$", "<b>", "_one", "-two"),
    "classes that are not UTF-8": _classes(b"\xff\xfe", b"caf\xe9"),
    "classes of emoji and RTL": _classes("🐈‍⬛", "\u202etac", "קט", "\u0301", "e\u0301", "é"),
    "classes of control characters": _classes("a\nb", "c\x1b[31m", "d\td", "\x7f", " "),
    "classes of 255 bytes": _classes("n" * 255, "é" * 127),
    "classes that differ in case": _classes("Cat", "cat", "CAT"),
    "a class nobody may open": _shut,
    "a file instead": _instead(lambda path: path.write_text("x")),
    "a FIFO instead": _instead(os.mkfifo),
    "a link to nothing instead": _instead(lambda path: path.symlink_to("x")),
    "a link to itself instead": _instead(lambda path: path.symlink_to("images")),
    "a folder above as a class": lambda work: (work / "images" / "up").symlink_to(".."),
}  # fmt: skip


def cases() -> Iterator[Case]:
    """All of this family."""
    for reader in _READERS:
        for what, make in PICTURES.items():
            if reader == "verify" or (what in _EVERYWHERE and reader not in _SLOW):
                yield _case(reader, what, lambda work, make=make: make(work / "images" / "dark"))
        for what, prepare in FOLDERS.items():
            if reader not in _SLOW or what in _TELLING:
                yield _case(reader, f"a folder, {what}", prepare)
    few = {resource_limit(): 64}
    yield basic(
        "pictures", "verify", "more images than files may be open",
        prepare=lambda work: make_images(work / "images" / "many", (), 200),
        around=Surroundings(limits=few), instead={"4": "150"}, codes=_RUNS,
    )  # fmt: skip
    yield basic(
        "pictures", "train", "workers that meet a broken image", "--workers", "2",
        prepare=lambda work: (work / "images/dark/0.png").write_bytes(b"x"), codes=_RUNS,
    )  # fmt: skip


def resource_limit() -> int:
    """RLIMIT_NOFILE"""
    import resource

    return resource.RLIMIT_NOFILE


def _case(reader: str, what: str, prepare: Make) -> Case:
    verb, more = _READERS[reader]
    kit = ("few.toml", "images") if verb in ("trt", "report") else ()
    codes = _RUNS | ({3} if verb == "trt" else set())
    return basic("pictures", verb, f"{reader}: {what}", *more, kit=kit, prepare=prepare, codes=frozenset(codes))
