"""Tar shards: their images are read as files are; what is damaged or unclear is refused or counted, and never waits."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import pickle
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.data.test_folder import read, reasons
from tests.data.test_sources import SMALL, write_image
from tests.helpers import refused_as
from tofe_export.data.image_file import UnreadableImage
from tofe_export.data.image_log import Reason
from tofe_export.data.images import batches
from tofe_export.data.shards import Shards
from tofe_export.data.sources import open_source
from tofe_export.data.tar_index import read_index
from tofe_export.errors import InputError


def png(value: int = 0) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (20, 24), (value,) * 3).save(content, "PNG")
    return content.getvalue()


def write_shard(path: Path, members: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def members_of(shard: Path) -> list[tarfile.TarInfo]:
    with tarfile.open(shard) as tar:
        return tar.getmembers()


def samples(count: int, classes: int = 2, start: int = 0) -> dict[str, bytes]:
    members = {}
    for index in range(start, start + count):
        members |= {f"{index:03}.png": png(index), f"{index:03}.cls": b"%d\n" % (index % classes)}
    return members


def opened(folder: Path, part: str = "any") -> Shards:
    source = open_source(str(folder), part)  # type: ignore[arg-type]
    assert isinstance(source, Shards)
    return source


def test_images_by_class_with_names_of_the_list(tmp_path: Path) -> None:
    write_shard(tmp_path / "0.tar", samples(4))
    write_shard(tmp_path / "1.tar", {"d/x.PNG": png(9), "d/x.json": b'{"label": 0, "caption": "x"}'})
    (tmp_path / "classes.txt").write_text("\ufeffcat\r\nsea lion\nowl\n\n", encoding="utf-8")
    source = opened(tmp_path)
    assert source.classes == ("cat", "sea lion", "owl")
    found = [source[index] for index in range(len(source))]
    assert [sample.label for sample in found] == [0, 0, 0, 1, 1]
    assert [sample.image.getpixel((0, 0)) for sample in found] == [(value,) * 3 for value in (0, 2, 9, 1, 3)]
    assert found[2].name == f"{tmp_path}/1.tar:d/x.PNG"
    assert source.left_out == ()
    assert source.at_epoch(3) is source


def test_classes_are_numbers_where_no_list_names_them(tmp_path: Path) -> None:
    write_shard(tmp_path / "0.tar", {"a.png": png(), "a.cls": b"2"})
    assert opened(tmp_path).classes == ("0", "1", "2")


def test_without_any_label_they_are_a_flat_folder(tmp_path: Path) -> None:
    write_shard(tmp_path / "0.tar", {"b.png": png(1), "a.png": png(2)})
    source = opened(tmp_path)
    assert source.classes == ()
    (batch,) = batches(source, SMALL, 4)
    assert batch.labels is None
    assert [Path(name).name for name in batch.names] == ["0.tar:b.png", "0.tar:a.png"]


def test_train_and_val_with_one_list_for_both(tmp_path: Path) -> None:
    write_shard(tmp_path / "train" / "0.tar", samples(4))
    write_shard(tmp_path / "val" / "0.tar", {"000.png": png(), "000.cls": b"0"})
    (tmp_path / "classes.txt").write_text("ant\nbee")
    assert (len(opened(tmp_path, "train")), len(opened(tmp_path, "val")), len(opened(tmp_path))) == (4, 1, 1)
    assert opened(tmp_path, "train").classes == opened(tmp_path, "val").classes == ("ant", "bee")


def test_every_tenth_of_each_class_is_held_out(tmp_path: Path) -> None:
    write_shard(tmp_path / "0.tar", samples(30))
    write_shard(tmp_path / "1.tar", samples(12, start=30))
    train, val = opened(tmp_path, "train"), opened(tmp_path, "val")
    assert [image.file.name for image in val.images] == ["018.png", "038.png", "019.png", "039.png"]
    assert len(train) == 38
    assert not set(train.images) & set(val.images)


def test_a_class_with_one_image_cannot_be_parted(tmp_path: Path) -> None:
    write_shard(tmp_path / "0.tar", {**samples(2, classes=1), "x.png": png(), "x.cls": b"1"})
    with refused_as("single-image") as caught:
        open_source(str(tmp_path), "train")
    assert "The class 1 of " in caught.value.message


def test_what_is_not_an_image_with_a_label_is_counted(tmp_path: Path) -> None:
    content = {
        **samples(2),
        **{"a.png": png(), "b.png": png(), "b.cls": b"cat", "c.png": png(), "c.json": b"{", "d.png": b"no image"},
        **{"d.cls": b"1", "e.cls": b"0", "f.heic": b"", "README": b"", "._000.png": b"", ".DS_Store": b""},
        **{"g.png": png(), "g.json": b'{"label": true}', "h.png": png(), "h.json": b'{"label": -1}', "000.txt": b"x"},
        **{"i.png": png(), "i.json": b"[" * 100_000, "j.png": png(), "j.cls": b"1" * 50, "k.mask.png": b""},
        **{"l.png": png(), "l.json": b" " * (1 << 20) + b'{"label": 1}'},
    }
    shard = write_shard(tmp_path / "0.tar", content)
    with tarfile.open(shard, "a") as tar:
        for name, kind in (("m.png", tarfile.SYMTYPE), ("n.png", tarfile.LNKTYPE), ("o.png", tarfile.CHRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    (tmp_path / "stats.json").write_text("{}")
    os.mkfifo(tmp_path / "pipe.tar")
    log = read(tmp_path)
    assert log.read == 2
    found = {name.removeprefix("0.tar:"): reason for name, reason in reasons(log, tmp_path).items()}
    assert found == {
        **dict.fromkeys(("a.png", "b.png", "c.png", "g.png", "h.png", "i.png", "j.png", "l.png"), Reason.LABEL),
        **dict.fromkeys(("f.heic", "README", "000.txt", "k.mask.png", "m.png", "n.png", "o.png"), Reason.KIND),
        **dict.fromkeys(("stats.json", "pipe.tar"), Reason.KIND),
        **{"d.png": Reason.CORRUPT, "e.cls": Reason.GONE, "._000.png": Reason.HIDDEN},
    }
    assert "8 without a label that can be read" in log.lines()[0]
    assert "3 link or special file in a tar" in log.lines()[0]


def _damaged(shard: Path) -> bytes:
    """A header in the middle that cannot be read: `tarfile` ends there without an error."""
    content = bytearray(shard.read_bytes())
    second = members_of(shard)[2].offset
    content[second : second + 100] = b"\xff" * 100
    return bytes(content)


def _of_size(shard: Path, size: bytes) -> bytes:
    """The first header claims another size, with a checksum that fits."""
    content = bytearray(shard.read_bytes())
    content[124:136] = size
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    return bytes(content)


def _long_name(shard: Path) -> bytes:
    """A long name of as many bytes as the file has, and more than a header may have."""
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 1 << 20
    return member.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20) + shard.read_bytes()


def _names_of_names(shard: Path) -> bytes:
    """A long name whose file has a long name, and so on."""
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 1
    return (member.tobuf(tarfile.GNU_FORMAT) + bytes(512)) * 3000 + shard.read_bytes()


DAMAGE: dict[str, Callable[[Path], bytes]] = {
    "empty": lambda shard: b"",
    "no tar": lambda shard: b"no tar at all" * 100,
    "cut in an image": lambda shard: shard.read_bytes()[:520],
    "cut in a header": lambda shard: shard.read_bytes()[:1300],
    "cut between two": lambda shard: shard.read_bytes()[: 4 * 512],
    "a damaged header": _damaged,
    "a size of exabytes": lambda shard: _of_size(shard, b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7),
    "a size below zero": lambda shard: _of_size(shard, b"\xff" * 10 + b"\xfe\0"),
    "a long name": _long_name,
    "names of names": _names_of_names,
    "two in one": lambda shard: shard.read_bytes() * 2,
    "an endless end": lambda shard: shard.read_bytes() + bytes(1 << 20),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_shards_are_refused(damage: Callable[[Path], bytes], tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "0.tar", samples(3))
    shard.write_bytes(damage(shard))
    with refused_as("shard-damaged", path=shard):
        open_source(str(tmp_path), "any")


WHOLE = samples(2)


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 4 * 1024 - 1), value=st.integers(0, 255), cut=st.integers(0, 10 * 1024))
def test_any_byte_may_be_wrong(place: int, value: int, cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    shard = write_shard(tmp_path_factory.mktemp("shard") / "0.tar", WHOLE)
    content = bytearray(shard.read_bytes())
    content[place] = value
    shard.write_bytes(content[: len(content) - cut])
    with contextlib.suppress(InputError):
        source = opened(shard.parent)
        for index in range(len(source)):
            source[index]


@pytest.mark.parametrize("name", ["0.tar", "0.tar.gz", "0.TGZ"])
def test_compressed_shards_are_refused(name: str, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / name, samples(3))
    shard.write_bytes(gzip.compress(shard.read_bytes()))
    with refused_as("shard-compressed", path=shard):
        open_source(str(tmp_path), "any")


def test_a_compressed_archive_beside_the_images_it_held_is_left_out(tmp_path: Path) -> None:
    write_image(tmp_path / "0.png", 1)
    (tmp_path / "all.tar.gz").touch()
    assert reasons(read(tmp_path), tmp_path) == {"all.tar.gz": Reason.KIND}


@pytest.mark.parametrize("image", ["0.png", "cat/0.png", "train/cat/0.png"])
def test_shards_beside_images_are_refused(image: str, tmp_path: Path) -> None:
    write_shard(tmp_path / "0.tar", samples(3))
    write_image(tmp_path / image, 1)
    if image.startswith("train"):
        write_image(tmp_path / "val" / "cat" / "0.png", 1)
    with refused_as("mixed-images"):
        open_source(str(tmp_path), "any")


@pytest.mark.parametrize(
    "shards",
    [
        [{"a.png": png(), "a.cls": b"0"}, {"a.png": png(), "a.cls": b"1"}],
        [{"a.png": png(), "a.jpg": png()}],
        [{"a.png": png(), "a.cls": b"0", "a.CLS": b"1"}],
    ],
    ids=["across shards", "two images", "two labels"],
)
def test_keys_that_come_twice_are_refused(shards: list[dict[str, bytes]], tmp_path: Path) -> None:
    for number, members in enumerate(shards):
        write_shard(tmp_path / f"{number}.tar", members)
    with refused_as("key-twice"):
        open_source(str(tmp_path), "any")


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"a.txt": b""}, "no-image"),
        ({}, "no-image"),
        ({"a.png": png(), "a.cls": b"cat"}, "labels-unreadable"),
        ({"a.png": png(), "a.cls": b"999999999"}, "label-range"),
    ],
)
def test_shards_that_cannot_be_used(members: dict[str, bytes], code: str, tmp_path: Path) -> None:
    write_shard(tmp_path / "0.tar", members)
    with refused_as(code):
        open_source(str(tmp_path), "any")


@pytest.mark.parametrize("names", [b"cat", b"cat\n\nowl", b"cat\nowl\ncat", b"\xff\xfe\xff", b""])
def test_lists_of_classes_that_do_not_fit(names: bytes, tmp_path: Path) -> None:
    write_shard(tmp_path / "0.tar", samples(2))
    (tmp_path / "classes.txt").write_bytes(names)
    with refused_as("class-list", path=tmp_path / "classes.txt"):
        open_source(str(tmp_path), "any")


def test_an_image_of_gigabytes_is_left_out(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "0.tar", samples(2))
    large = tarfile.TarInfo("x.png")
    large.size = (1 << 30) + 512
    with shard.open("r+b") as file:  # a hole, which takes no room
        file.seek(members_of(shard)[-1].offset + 1024)
        file.write(large.tobuf())
        file.seek(large.size, os.SEEK_CUR)
        file.write(bytes(1024))
        file.truncate()
    assert reasons(read(tmp_path), tmp_path) == {"0.tar:x.png": Reason.TOO_LARGE}


def test_a_shard_that_changes_later_is_not_a_crash(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "0.tar", samples(2))
    source = opened(tmp_path)
    shard.write_bytes(shard.read_bytes()[:520])
    with pytest.raises(UnreadableImage):
        source[0]
    shard.unlink()
    with pytest.raises(UnreadableImage) as caught:
        source[0]
    assert caught.value.left_out.reason is Reason.GONE
    write_shard(shard, samples(4))
    assert len(opened(tmp_path)) == 4


def test_workers_and_copies_read_the_same(tmp_path: Path) -> None:
    write_shard(tmp_path / "0.tar", samples(6))
    source = opened(tmp_path)
    images = [
        torch.cat([batch.images for batch in batches(one, SMALL, 2, workers=workers)])
        for one, workers in ((source, 0), (pickle.loads(pickle.dumps(source)), 0), (source, 2))
    ]
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0], images[2])


def test_sparse_members_and_names_that_are_not_utf8(tmp_path: Path) -> None:
    shard = tmp_path / "0.tar"
    sparse = tarfile.TarInfo("s.png")
    sparse.type = tarfile.GNUTYPE_SPARSE
    named = tarfile.TarInfo(os.fsdecode(b"caf\xe9.png"))
    shard.write_bytes(sparse.tobuf(tarfile.GNU_FORMAT) + named.tobuf(tarfile.GNU_FORMAT, "utf-8") + bytes(1024))
    files, left_out = read_index(shard)
    assert [file.name for file in files] == [r"caf\xe9.png"]
    assert [one.name for one in left_out] == [f"{shard}:s.png"]
