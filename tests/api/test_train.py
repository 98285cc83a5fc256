"""`train` as a function: what it refuses before any work, and what a run of one step returns."""

from pathlib import Path

from tests.helpers import refused_as
from tofe_export.api.train import train

SMALL = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 4, "num_heads": 2}


def test_two_starts_and_a_budget_that_is_none(tmp_path: Path) -> None:
    with refused_as("two-starts"):
        train("digits", tmp_path / "run", pretrained=True, init="x.pth")
    with refused_as("out-of-range", name="budget"):
        train("digits", tmp_path / "run", budget=1.5)
    assert not list(tmp_path.iterdir())


def test_the_initial_weights_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "ckpt.pth").write_bytes(b"weights")
    with refused_as("would-overwrite"):
        train("digits", tmp_path, init=tmp_path / "ckpt.pth")
    assert (tmp_path / "ckpt.pth").read_bytes() == b"weights"


def test_a_run_and_its_images(tmp_path: Path) -> None:
    from PIL import Image

    for label, name in enumerate("ab"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(3):
            Image.new("RGB", (20, 20), (90 * label, index, 0)).save(tmp_path / "data" / name / f"{index}.png")
    settings = {"backbone": "vit_tiny_patch16_224", "backbone_args": SMALL, "device": "cpu"}
    trained = train(tmp_path / "data", tmp_path / "run", epochs=1, dense_epochs=0, batch_size=4, **settings)
    assert trained.path == tmp_path / "run" / "ckpt.pth"
    assert (trained.images.read, trained.images.left_out) == (6, 0)
    assert trained.load().classes == ("a", "b")
