"""Images by their names: files, folders, patterns; and what is said where there are none."""

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
    """b.png, a.png, sub/c.jpg, sub/broken.png, sub/text.txt and [1].png, in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    for name in ("b.png", "a.png", "sub/c.jpg", "sub/deep/d.png", "[1].png"):
        Image.new("RGB", (8, 8), "red").save(name)
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
        (["**/*.png"], ["[1].png", "a.png", "b.png", "sub/broken.png", "sub/deep/d.png"]),
        (["[ab].png"], ["a.png", "b.png"]),
        (["[1].png"], ["[1].png"]),
        (["a.png", "a.png"], ["a.png", "a.png"]),
        (["gone.png"], ["gone.png"]),
    ],
)
def test_names_become_files_in_their_order(names: list[str], files: list[str]) -> None:
    assert [str(path) for path in open_named(names).files] == files


@pytest.mark.usefixtures("folder")
def test_an_image_of_a_folder_is_left_out_where_one_that_was_named_is_an_error() -> None:
    source = open_named(["sub"])
    log = source.log()
    (batch,) = batches(source, PREPROCESSING, 8, log=log)
    assert batch.names == ("sub/c.jpg", "sub/deep/d.png")
    assert set(log.left_out) == {"sub/broken.png", "sub/text.txt"}
    for name in ("sub/broken.png", "gone.png"):
        named = open_named([name, "a.png"])
        with pytest.raises(UnreadableImage, match=name):
            list(batches(named, PREPROCESSING, 8, log=named.log()))


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("names", "code"),
    [
        ([], "no-image-named"),
        (["https://example.org/cat.jpg"], "image-address"),
        (["a.png", "s3://bucket/cat.jpg"], "image-address"),
        (["file:///tmp/cat.jpg"], "image-address"),
        (["empty"], "no-image"),
        (["*.gif"], "no-file-fits"),
        (["su?"], "no-file-fits"),
    ],
)
def test_what_names_no_image_is_refused(names: list[str], code: str) -> None:
    Path("empty").mkdir()
    assert refusal(open_named, names).code == code
