"""Images by their names: files, folders, patterns; and what is said where there are none."""

import os
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers import refusal
from tofe_export.data.image_file import UnreadableImage
from tofe_export.data.images import batches
from tofe_export.data.named import open_named
from tofe_export.data.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(8, 8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """b.png, a.png, [1].png, sub/ with good and bad files, and round/ with a link to itself, where the test works."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    for name in ("b.png", "a.png", "sub/c.jpg", "sub/deep/d.png", "[1].png"):
        Image.new("RGB", (8, 8), "red").save(name)
    (tmp_path / "round").mkdir()
    Image.new("RGB", (8, 8), "red").save("round/e.png")
    Path("round/again").symlink_to(".")
    Path("sub/broken.png").write_bytes(b"\x89PNG")
    Path("sub/text.txt").write_text("x")
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["b.png", "a.png"], ["b.png", "a.png"]),
        (["sub", "a.png"], ["sub/broken.png", "sub/c.jpg", "sub/deep/d.png", "a.png"]),
        (["?.png"], ["a.png", "b.png"]),
        (["**/[a-d]*.png"], ["a.png", "b.png", "sub/broken.png", "sub/deep/d.png"]),
        (["[ab].png"], ["a.png", "b.png"]),
        (["[1].png"], ["[1].png"]),
        (["a.png", "a.png"], ["a.png", "a.png"]),
        (["su?"], ["sub/broken.png", "sub/c.jpg", "sub/deep/d.png"]),
        (["sub", ".hidden.png"], ["sub/broken.png", "sub/c.jpg", "sub/deep/d.png", ".hidden.png"]),
        (["round/**/*.png"], ["round/e.png"]),
        (["~/b.png"], ["HOME/b.png"]),
        (["~/?.png"], ["HOME/a.png", "HOME/b.png"]),
    ],
)
def test_names_become_files_in_their_order(names: list[str], files: list[str]) -> None:
    Image.new("RGB", (8, 8), "red").save(".hidden.png")
    assert [str(path) for path in open_named(names).files] == [
        name.replace("HOME", os.environ["HOME"]) for name in files
    ]


@pytest.mark.usefixtures("folder")
def test_an_image_of_a_folder_is_left_out_where_one_that_was_named_is_an_error() -> None:
    source = open_named(["sub"])
    log = source.log()
    (batch,) = batches(source, PREPROCESSING, 8, log=log)
    assert batch.names == ("sub/c.jpg", "sub/deep/d.png")
    assert set(log.left_out) == {"sub/broken.png", "sub/text.txt"}
    named = open_named(["a.png", "sub/broken.png"])
    with pytest.raises(UnreadableImage, match=r"sub/broken\.png"):
        list(batches(named, PREPROCESSING, 8, log=named.log()))


@pytest.mark.usefixtures("folder")
def test_a_hidden_image_that_was_named_beside_its_folder_is_read() -> None:
    Image.new("RGB", (8, 8), "red").save(".hidden.png")
    source = open_named([".", ".hidden.png"])
    log = source.log()
    names = [name for batch in batches(source, PREPROCESSING, 8, log=log) for name in batch.names]
    assert names.count(".hidden.png") == 1
    assert ".hidden.png" not in log.left_out


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("names", "code"),
    [
        ([], "no-image-named"),
        ([""], "empty-name"),
        (["gone.png"], "unreadable-image"),
        (["a.png/b.png"], "unreadable-image"),
        (["x" * 300], "unreadable"),
        (["nul\0.png"], "unreadable-image"),
        (["https://example.org/cat.jpg"], "image-address"),
        (["a.png", "s3://bucket/cat.jpg"], "image-address"),
        (["file:///tmp/cat.jpg"], "image-address"),
        (["empty"], "no-image"),
        (["*.gif"], "no-file-fits"),
        (["*/none*"], "no-file-fits"),
        (["emp?y"], "no-image"),
    ],
)
def test_what_names_no_image_is_refused(names: list[str], code: str) -> None:
    Path("empty").mkdir()
    assert refusal(open_named, names).code == code
