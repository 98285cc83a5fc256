"""What verbs say about images: how many they read and left out, and why; and what depth and class names change."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Run
from tests.helpers import small_tofe
from tofe_export.api.export import export
from tofe_export.checkpoints.checkpoint import Checkpoint, load, save
from tofe_export.data.digits import Digits
from tofe_export.data.preprocessing import Preprocessing

COPIES = 40  # digits


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint that knows its classes, and its export."""
    folder = tmp_path_factory.mktemp("classes")
    model = small_tofe(num_classes=10)
    preprocessing = Preprocessing.of_backbone(model.vit)
    save(folder / "ckpt.pth", Checkpoint(model, (0.5, 0.3, 0.2), preprocessing, {}, "digits", classes=Digits.classes))
    export(load(folder / "ckpt.pth"), folder / "model.onnx")
    return folder


def copy_digits(folder: Path, depth: int) -> Path:
    """Held-out digits in gray, a folder a class, in 8 or 16 bits."""
    source = Digits("val")
    for index in range(COPIES):
        canvas = source.canvas(index)
        grey = np.asarray(Image.fromarray(canvas.pixels).convert("L"))
        path = folder / str(canvas.label) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey if depth == 8 else grey.astype(np.uint16) * 257).save(path)
    return folder


def verify(run: Run, deployed: Path, *arguments: object) -> tuple[int, str, dict[str, object]]:
    """Exit code, both streams, and the document."""
    fixed = ("--against", deployed / "ckpt.pth", "--json", "v.json", "--samples", COPIES)
    done = run("verify", deployed / "model.onnx", *fixed, *arguments)
    return done.returncode, done.stdout + done.stderr, json.loads(Path("v.json").read_text())


@pytest.mark.slow
def test_a_16_bit_copy_of_the_digits_verifies_as_the_8_bit_one(
    deployed: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    documents = []
    for depth in (8, 16):
        code, said, document = verify(run, deployed, "--data", copy_digits(tmp_path / str(depth), depth))
        assert code == 0, said
        assert f"Images: {COPIES} read, none left out." in said
        assert document.pop("images") == {
            **{"read": COPIES, "left_out": 0, "reasons": {}, "kinds": {}, "names": [], "notes": []}
        }
        assert document.pop("data")
        documents.append(document)
    assert documents[0]["accuracy"] is not None
    assert documents[0] == documents[1]


def test_other_classes_are_said_and_a_limit_on_accuracy_is_not_checked(
    deployed: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = copy_digits(tmp_path / "data", 8)
    (folder / "3").rename(folder / "three")
    code, said, document = verify(run, deployed, "--data", folder, "--no-threshold")
    assert (code, document["passed"]) == (0, True)
    assert "Not checked: Accuracy was not measured" in said
    assert "such as three" in said
    own = ("--tolerance", "accuracy_lost=0.5")
    code, said, document = verify(run, deployed, "--data", folder, "--no-threshold", *own)
    assert (code, document["passed"], document["accuracy"]) == (3, None, None)
    assert "NOT CHECKED" in said
    code, said, document = verify(run, deployed, "--data", "photos", "--no-threshold", *own)
    assert (code, document["passed"]) == (3, None)
    assert "have no labels" in said
    code, said, document = verify(run, deployed, "--data", "digits", "--no-threshold", *own)
    assert (code, document["passed"]) == (0, True)


def test_quantize_counts_what_it_could_not_calibrate_or_compare_on(deployed: Path, run: Run, tmp_path: Path) -> None:
    for part in ("train", "val"):
        copy_digits(tmp_path / "data" / part, 8)
        (tmp_path / "data" / part / "0" / "bad.png").write_bytes(b"no image")
    (tmp_path / "data" / "val" / "1" / "new.heic").write_bytes(b"")
    (tmp_path / "few.toml").write_text('[data]\nsource = "data"\nsamples = 100\n')
    files = ("-o", tmp_path / "q.onnx", "--json", "q.json", "--cache", "c.npz")
    done = run("quantize", deployed / "model.onnx", "--recipe", "few.toml", *files, "--rounds", 2, "--processes", 1)
    assert done.returncode in (0, 1), done.stderr
    assert f"Images: {2 * COPIES} read, 3 left out: 2 that cannot be decoded, 1 .heic" in done.stderr
    images = json.loads((tmp_path / "q.json").read_text())["images"]
    assert (images["read"], images["reasons"]) == (2 * COPIES, {"corrupt": 2, "kind": 1})
    assert {Path(found["name"]).parent.parent.name for found in images["names"]} == {"train", "val"}


def test_the_report_counts_too(deployed: Path, run: Run, tmp_path: Path) -> None:
    for name in ("ckpt.pth", "model.onnx", "model.onnx.json"):
        (tmp_path / name).write_bytes((deployed / name).read_bytes())
    folder = copy_digits(tmp_path / "data", 8)
    (folder / "2" / "bad.png").write_bytes(b"no image")
    (folder / "3").rename(folder / "three")
    done = run("report", ".", "--data", "data", "--images", 2)
    assert done.returncode == 0, done.stderr
    assert f"Images: {COPIES} read, 1 left out: 1 that cannot be decoded." in done.stderr
    page = (tmp_path / "report.html").read_text()
    assert "bad.png" in page
    assert "classes that are not the model&#39;s" in page
    assert "wrong: it is" not in page


def test_a_bundled_name_that_is_a_folder_here_too(deployed: Path, run: Run, tmp_path: Path) -> None:
    copy_digits(tmp_path / "digits", 8)
    train = ("train", "--data", "digits", "-o", "run")
    trained = ("onnx", deployed / "ckpt.pth", "--keep-from", "digits")
    for arguments in (train, trained, ("verify", deployed / "model.onnx", "--against", deployed / "ckpt.pth")):
        data = ("--data", "digits") if arguments[0] == "verify" else ()
        done = run(*arguments, *data)
        assert done.returncode == 2, done.stdout
        assert "Write ./digits for the folder" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"digits"}


@pytest.mark.slow
def test_a_class_folder_whose_name_is_not_utf8_trains_a_checkpoint_that_is_read(run: Run, tmp_path: Path) -> None:
    for label, name in enumerate((b"caf\xe9", b"tea")):
        folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/data/" + name))
        folder.mkdir(parents=True)
        for index in range(3):
            Image.new("RGB", (20, 20), (90 * label, index, 0)).save(folder / f"{index}.png")
    network = "img_size=16,patch_size=4,embed_dim=16,depth=4,num_heads=2"
    options = ("--epochs", 1, "--dense-epochs", 0, "--backbone", "vit_tiny_patch16_224", "--backbone-args", network)
    done = run("train", "--data", "data", "-o", "run", "--device", "cpu", *options)
    assert done.returncode == 0, done.stderr
    assert "Images: 6 read, none left out." in done.stderr
    done = run("onnx", "run/ckpt.pth", "--data", "data")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "model.onnx.json").read_text())["classes"] == [r"caf\xe9", "tea"]
    done = run("verify", "model.onnx", "--against", "run/ckpt.pth", "--data", "data", "--json", "v.json")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "v.json").read_text())["accuracy"] is not None
