"""tofe-export predict as its user sees it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Run


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two images, a third one that is text, and a list, in photos/."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("one.png", "two.png"):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)).save(folder / name)
    (folder / "text.pgm").write_text("P2 2 2 9\n1 2 3 4\n")
    (folder / "list.txt").write_text("one, two")
    return folder


@pytest.mark.usefixtures("images")
def test_table_document_and_token_map(exported: Path, tmp_path: Path, run: Run) -> None:
    done = run("predict", exported, "photos", "--top", 2, "--json", "p.json", "--token-map", "map.png")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "Wrote map.png" in lines
    assert sum("photos/one.png" in line for line in lines) == 1, "beside its best class only"
    assert sum("%" in line for line in lines) == 6
    assert "3 read, 1 left out" in done.stderr
    document = json.loads((tmp_path / "p.json").read_text())
    assert [row["image"] for row in document["rows"]] == ["photos/one.png", "photos/text.pgm", "photos/two.png"]
    with Image.open(tmp_path / "map.png") as picture:
        picture.verify()


@pytest.mark.usefixtures("images")
def test_standard_output_holds_the_document_alone(exported: Path, run: Run) -> None:
    done = run("predict", exported, "photos/one.png", "--json", "-", "--token-map", "map.png")
    assert json.loads(done.stdout)["schema"] == "tofe-export/predict/1"
    assert "photos/one.png" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["https://example.org/cat.jpg"], "is an address"),
        (["gone.png"], "gone.png cannot be read as an image (not there)"),
        (["photos/list.txt"], "cannot be read as an image"),
        (["*.jpg"], "No file fits the pattern"),
        (["photos", "--top", "0"], "--top"),
        (["photos", "--token-map", "map.jpg"], "does not end in .png"),
        (["photos/one.png", "--token-map", "photos/one.png"], "would be overwritten"),
        (["photos", "--token-map", "photos/two.png"], "would be overwritten"),
        (["photos", "--json", "photos/one.png"], "photos/one.png would be overwritten"),
        (["photos", "--json", "photos/text.pgm"], "photos/text.pgm would be overwritten"),
        (["p*", "--json", "photos/../photos/text.pgm"], "text.pgm would be overwritten"),
        ([""], "it is empty"),
        (["photos", "--json", "same.png", "--token-map", "same.png"], "same.png would be overwritten"),
        ([], "Missing argument"),
    ],
)
def test_refusals_lose_nothing(checkpoint: Path, images: Path, run: Run, arguments: list[str], said: str) -> None:
    before = {path: path.read_bytes() for path in images.iterdir()}
    done = run("predict", checkpoint, *arguments)
    assert done.returncode == 2, done.stderr
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert {path: path.read_bytes() for path in images.iterdir()} == before


def test_another_picture_is_not_replaced_but_a_token_map_is(
    checkpoint: Path, images: Path, tmp_path: Path, run: Run
) -> None:
    other = tmp_path / "holiday.png"
    other.write_bytes((images / "one.png").read_bytes())
    refused = run("predict", checkpoint, "photos/two.png", "--token-map", "holiday.png")
    assert refused.returncode == 2
    assert "holiday.png is a picture" in refused.stderr
    for _ in range(2):
        assert run("predict", checkpoint, "photos/two.png", "--token-map", "map.png").returncode == 0
