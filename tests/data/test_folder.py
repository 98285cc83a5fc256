"""What lies in a folder: read, left out with a reason, or refused with a sentence; nothing goes without a word."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image, features

from tests.data.test_sources import SMALL, write_image
from tests.helpers import refused_as
from tofe_export.data.folder import open_folder
from tofe_export.data.image_log import ImageLog, Reason, image_lines
from tofe_export.data.images import batches
from tofe_export.data.sources import class_note, open_source, require_unambiguous
from tofe_export.errors import InputError


def read(folder: Path, part: str = "any") -> ImageLog:
    log = ImageLog()
    for _ in batches(open_source(str(folder), part), SMALL, 4, log=log):  # type: ignore[arg-type]
        pass
    return log


def reasons(log: ImageLog, folder: Path) -> dict[str, Reason]:
    return {str(Path(name).relative_to(folder)): one.reason for name, one in log.left_out.items()}


def test_everything_beside_the_images_is_counted(tmp_path: Path) -> None:
    for index in range(3):
        write_image(tmp_path / "ant" / f"{index}.png", index)
        write_image(tmp_path / "bee" / "deep" / f"{index}.JPG", index)
    write_image(tmp_path / "stray.png", 1)
    write_image(tmp_path / "ant" / ".hidden.png", 1)
    write_image(tmp_path / "ant" / ".thumbs" / "0.png", 1)
    write_image(tmp_path / ".cache" / "0.png", 1)
    (tmp_path / "ant" / "labels.txt").write_text("ant")
    (tmp_path / "ant" / "new.heic").write_bytes(b"")
    (tmp_path / "bee" / "LICENSE").write_text("free")
    (tmp_path / "bee" / ".DS_Store").write_bytes(b"")
    (tmp_path / "bee" / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "bee" / "self.png").symlink_to("self.png")
    os.mkfifo(tmp_path / "bee" / "pipe.png")
    log = read(tmp_path)
    assert log.read == 6
    assert reasons(log, tmp_path) == {
        "stray.png": Reason.LOOSE,
        "ant/.hidden.png": Reason.HIDDEN,
        "ant/.thumbs": Reason.HIDDEN,
        ".cache": Reason.HIDDEN,
        "ant/labels.txt": Reason.KIND,
        "ant/new.heic": Reason.KIND,
        "bee/LICENSE": Reason.KIND,
        "bee/gone.png": Reason.GONE,
        "bee/self.png": Reason.GONE,
        "bee/pipe.png": Reason.KIND,
    }
    first, second = log.lines()
    assert first.startswith("Images: 6 read, 10 left out: ")
    assert "3 hidden" in first
    assert "1 .txt, 1 .heic, 1 without an ending, 1 special file (kinds that are not read)" in first
    assert "stray.png (beside the class folders)" in second
    document = log.document()
    assert (document.read, document.left_out) == (6, 10)
    assert document.reasons == {"hidden": 3, "kind": 4, "gone": 2, "loose": 1}
    assert document.kinds == {".txt": 1, ".heic": 1, "without an ending": 1, "special file": 1}
    stray = {"name": str(tmp_path / "stray.png"), "reason": "loose", "detail": "beside the class folders"}
    assert stray in document.to_dict()["names"]
    assert image_lines(document) == log.lines()


def test_endings_that_this_pillow_decodes_are_read(tmp_path: Path) -> None:
    names = ["a.jfif", "b.jpe", "c.TIFF", "d.dib", "e.tga"]
    names += ["f.avif"] * bool(features.check("avif")) + ["g.jp2"] * bool(features.check("jpg_2000"))
    for name in names:
        write_image(tmp_path / name, 7)
    assert read(tmp_path).read == len(names)


@pytest.mark.parametrize(("loose", "classes"), [(200, {"a": 1}), (1, {"a": 50}), (5, {"a": 20, "b": 5})])
def test_loose_images_that_may_be_meant_are_refused(loose: int, classes: dict[str, int], tmp_path: Path) -> None:
    for index in range(loose):
        (tmp_path / f"{index}.png").touch()
    for name, count in classes.items():
        (tmp_path / name).mkdir()
        for index in range(count):
            (tmp_path / name / f"{index}.png").touch()
    with refused_as("loose-images", loose=loose):
        open_folder(tmp_path)


def test_links_are_followed_once(tmp_path: Path) -> None:
    data, store = tmp_path / "data", tmp_path / "store"
    for index in range(2):
        write_image(store / f"{index}.png", index)
        write_image(data / "b" / f"{index}.png", index)
    (data / "a").mkdir()
    (data / "a" / "in").symlink_to(store)
    (data / "a" / "again").symlink_to(store)
    (data / "a" / "round").symlink_to(data)
    (data / "a" / "other").symlink_to(data / "b")
    (data / "b" / "round").symlink_to(".")
    log = read(data)
    assert log.read == 4
    found = reasons(log, data)
    assert set(found.values()) == {Reason.LINK}
    assert {"a/round", "a/other", "b/round"} < set(found)


def test_a_farm_of_links_ends(tmp_path: Path) -> None:
    for level in range(30):
        (tmp_path / "c" / f"{level}").mkdir(parents=True)
        for link in "xy":
            (tmp_path / "c" / f"{level}" / link).symlink_to(tmp_path / "c" / f"{level + 1}")
    write_image(tmp_path / "c" / "30" / "0.png", 1)
    assert read(tmp_path).read == 1


def test_one_class_under_two_names_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "a" / "0.png", 1)
    (tmp_path / "b").symlink_to("a")
    with refused_as("class-twice"):
        open_folder(tmp_path)


def test_a_held_out_image_is_not_trained_on_under_another_name(tmp_path: Path) -> None:
    for index in range(10):
        write_image(tmp_path / "a" / f"{index}.png", index)
    (tmp_path / "a" / "9b.png").symlink_to("9.png")  # the tenth and the eleventh
    train, val = (open_source(str(tmp_path), part) for part in ("train", "val"))  # type: ignore[arg-type]
    assert [Path(sample.name).name for sample in map(val.__getitem__, range(len(val)))] == ["9.png"]
    assert len(train) == 9
    assert [one.reason for one in train.left_out] == [Reason.HELD_OUT]


@contextmanager
def closed(folder: Path) -> Iterator[None]:
    """Nobody may read `folder`, root neither (who is another user for a while)."""
    user = os.geteuid()
    folder.chmod(0)
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o755)


def test_folders_that_may_not_be_read_are_named() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own are closed to others
        folder = Path(name)
        folder.chmod(0o755)
        for place in ("a", "b", "b/deep"):
            write_image(folder / place / "0.png", 1)
        with closed(folder / "b" / "deep"):
            log = read(folder)
        assert log.read == 2
        assert reasons(log, folder) == {"b/deep": Reason.FOLDER}
        assert "folder: Permission denied" in log.lines()[1]
        for shut in (folder / "a", folder):
            with closed(shut), pytest.raises(InputError, match=f"{shut}.* Permission denied") as caught:
                open_source(str(folder), "any")
            assert caught.value.code == "unreadable"


def test_class_names_that_are_not_utf8_become_text(tmp_path: Path) -> None:
    for name in (b"caf\xe9", b"tea"):
        folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        write_image(folder / "0.png", 1)
        (folder / os.fsdecode(b"\xff.txt")).touch()
    source = open_folder(tmp_path)
    assert source.classes == (r"caf\xe9", "tea")
    log = read(tmp_path)
    for text in (*source.classes, source[0].name, *log.left_out, *log.lines()):
        text.encode()  # no lone surrogates


def test_the_message_about_no_image_says_what_there_is(tmp_path: Path) -> None:
    for index in range(3):
        (tmp_path / f"{index}.heic").touch()
    write_image(tmp_path / ".a" / "0.png", 1)
    with pytest.raises(InputError, match=r": 1 hidden, 3 \.heic \(kinds that are not read\)") as caught:
        open_folder(tmp_path)
    assert caught.value.code == "no-image"


def test_a_bundled_name_and_a_folder_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    require_unambiguous("photos")
    (tmp_path / "photos").mkdir()
    require_unambiguous("photos")  # a run's folder, say
    write_image(tmp_path / "photos" / "0.png", 1)
    with pytest.raises(InputError) as caught:
        require_unambiguous("photos")
    assert caught.value.code == "ambiguous-data"
    assert "./photos" in caught.value.next_step
    require_unambiguous("./photos")
    assert len(open_source("./photos", "any")) == 1


def test_why_accuracy_is_not_measured(tmp_path: Path) -> None:
    for name in "ab":
        write_image(tmp_path / "classes" / name / "0.png", 1)
    write_image(tmp_path / "flat" / "0.png", 1)
    labelled, flat = open_folder(tmp_path / "classes"), open_folder(tmp_path / "flat")
    assert class_note(labelled, ("a", "b")) == ""
    assert "such as b" in class_note(labelled, ("a", "c"))
    assert "in another order" in class_note(labelled, ("b", "a"))
    assert "such as c" in class_note(labelled, ("a", "b", "c"))
    assert "does not name its classes" in class_note(labelled, ())
    assert "no labels" in class_note(flat, ("a", "b"))


def test_no_permission_is_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    write_image(tmp_path / "0.png", 1)
    Image.new("F", (8, 8), 7.5).save(tmp_path / "1.tif")
    log = read(tmp_path)
    assert log.lines()[0] == "Images: 1 read, 1 left out: 1 of a depth without a known range."


def test_a_name_that_no_file_system_takes() -> None:
    with pytest.raises(InputError, match="its name is too long") as caught:
        open_source("a" * 5000, "any")
    assert caught.value.code == "unreadable"
