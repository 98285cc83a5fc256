"""tofe-export quantize as its user sees it: the table and the verdict, the ranking, the refusals."""

import json
from pathlib import Path

import onnx
import pytest
from PIL import Image

from tests.cli.conftest import Run
from tofe_export.api.export import export
from tofe_export.artifacts.manifests import manifest_path

SAMPLES = ("--samples", 16)
QUICK = (*SAMPLES, "--rounds", 2, "--processes", 1)
FEW = '[data]\nsource = "digits"\nsamples = 12\n'


@pytest.fixture(scope="module")
def model(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quantize") / "model.onnx"
    return export(checkpoint, path).path


@pytest.fixture
def here(tmp_path: Path, model: Path) -> Path:
    """A copy in the user's folder, and a short recipe."""
    for path in (model, manifest_path(model)):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "few.toml").write_text(FEW)
    return tmp_path


def test_a_model_is_quantized_judged_and_verified(here: Path, run: Run, checkpoint: Path) -> None:
    cache = {"XDG_CACHE_HOME": str(here / "cache")}
    result = run("quantize", *("--recipe", "few.toml", "--json", "q.json", *QUICK), **cache)
    assert result.returncode in (0, 1), result.stderr  # a network trained on nothing may not agree; that is the verdict
    assert "Wrote model.int8.onnx" in result.stdout
    assert "Ship " in result.stdout
    document = json.loads((here / "q.json").read_text())
    assert document["passed"] == (result.returncode == 0)
    assert document["verdict"]["summary"] in result.stdout
    assert [found["batch"] for found in document["verdict"]["by_batch"]] == [1, 8]
    assert document["left_out"] == []
    assert document["coarse"] == {}
    assert document["agreement"][1]["tolerances"]["kl_mean"] == 0.1
    assert [row["precision"] for row in document["speed"]] == ["fp32", "fp16", "int8"] * 2
    assert [item["precision"] for item in document["agreement"]] == ["fp16", "int8"]
    assert document["layers"]["quantized"] == {"qkv": 5, "attention": 8, "proj": 4, "fc1": 4, "fc2": 4}
    manifest = json.loads((here / "model.int8.onnx.json").read_text())
    assert (manifest["precision"], manifest["around"]) == ("int8", "fp32")
    assert manifest["source"]["file"] == "model.onnx"
    assert len(list((here / "cache").rglob("*.npz"))) == 1
    inspected = run("inspect", "model.int8.onnx")
    assert "int8 with fp32 around" in inspected.stdout
    assert "recipe few: at most 12 images of digits, percentile" in inspected.stdout
    verified = run("verify", "model.int8.onnx", "--against", checkpoint, "--samples", 16, "--json", "v.json")
    assert verified.returncode in (0, 1), verified.stderr
    assert json.loads((here / "v.json").read_text())["precision"] == "int8"
    timed = run(
        "bench", "model.onnx", "model.int8.onnx", "--batch", 1, "--rounds", 2, "--processes", 1, "--json", "b.json"
    )
    assert timed.returncode == 0, timed.stderr
    rows = json.loads((here / "b.json").read_text())["rows"]
    assert [row["precision"] for row in rows] == ["fp32", "fp32", "int8", "int8"]
    assert [row["dense"] for row in rows] == [True, False, True, False]
    again = run("quantize", "model.int8.onnx", "--recipe", "few.toml", *QUICK, **cache)
    assert again.returncode == 2
    assert "model.int8.onnx is quantized already." in again.stderr


def test_the_kinds_of_layers_are_ranked(here: Path, run: Run) -> None:
    before = {path.name for path in here.iterdir()}
    result = run("quantize", "--recipe", "few.toml", "--sensitivity", "--json", "s.json", "--cache", "c.npz", *SAMPLES)
    assert result.returncode == 0, result.stderr
    kinds = json.loads((here / "s.json").read_text())["kinds"]
    assert {item["kind"] for item in kinds} == {
        *("patch_embed", "qkv", "attention", "proj", "fc1", "fc2", "approximator", "selector", "head")
    }
    classes = [item["top1_agreement"] for item in kinds]
    assert classes == sorted(classes), "the costliest first"
    assert {path.name for path in here.iterdir()} == before | {"s.json", "c.npz"}, "no model was written"
    (here / "few.toml").write_text(FEW + "seed = 7\n")
    other = run("quantize", "--recipe", "few.toml", "--cache", "c.npz", *QUICK)
    assert other.returncode == 2
    assert "was made for something else; what differs: the images." in other.stderr
    assert "Delete c.npz" in other.stderr


def test_refusals_leave_nothing_behind(here: Path, run: Run) -> None:
    (here / "empty").mkdir()
    (here / "spoiled").mkdir()
    for name in ("a.png", "b.png"):
        (here / "spoiled" / name).write_bytes(b"no image")
    (here / "one").mkdir()
    Image.new("RGB", (40, 40)).save(here / "one" / "a.png")
    (here / "wrong.toml").write_text(FEW + "colour = 3\n")
    (here / "other.npz").write_bytes(b"PK no numbers")
    before = {path.name for path in here.rglob("*")}
    for arguments, sentence in (
        (("--recipe", "wrong.toml"), "wrong.toml has the unknown key data.colour."),
        (("--recipe", "none.toml"), "none.toml does not exist."),
        (
            ("--recipe", "imagenet"),
            "The recipe imagenet takes images that are not here: its data.source is 'imagenet'.",
        ),
        (("--recipe", "imagenet"), "Next: Add --data FOLDER."),
        (("--tolerance", "int8.kl=1"), "There is no tolerance 'kl'."),
        (("--recipe", "few.toml", "--data", "empty"), "There is no image in empty."),
        (("--recipe", "few.toml", "--data", "spoiled"), "can be read"),
        (("--recipe", "few.toml", "--data", "one"), "holds a single image, too few"),
        (("--recipe", "few.toml", "-o", "model.engine"), "model.engine does not end in .onnx."),
        (("--recipe", "few.toml", "-o", "./model.onnx"), "model.onnx would be overwritten"),
        (("--recipe", "few.toml", "--cache", "other.npz"), "other.npz is not a calibration file"),
        (("--recipe", "few.toml", "--cache", "few.toml/c.npz"), "few.toml is a file"),
        (("--sensitivity", "-o", "x.onnx"), "omit --output"),
    ):
        result = run("quantize", *arguments, *QUICK, XDG_CACHE_HOME=str(here.parent / "cache"))
        assert result.returncode == 2, (arguments, result.stdout, result.stderr)
        assert sentence in " ".join(result.stderr.replace("│", " ").split()), (arguments, result.stderr)
        assert "Traceback" not in result.stderr
        assert {path.name for path in here.rglob("*")} == before, arguments


def test_a_manifest_of_another_size_and_one_of_another_precision(here: Path, run: Run) -> None:
    path = here / "model.onnx.json"
    manifest = json.loads(path.read_text())
    for change, sentence in (
        ({"preprocessing": {**manifest["preprocessing"], "height": 48, "width": 48}}, "takes images of shape"),
        ({"precision": "fp16"}, "only a float32 model can be calibrated"),
        ({"precision": "int8"}, "is quantized already"),
    ):
        path.write_text(json.dumps(manifest | change))
        result = run("quantize", "--recipe", "few.toml", "--cache", "c.npz", *QUICK)
        assert result.returncode == 2, result.stderr
        assert sentence in result.stderr
    assert not (here / "model.int8.onnx").exists()
    assert not (here / "c.npz").exists()


def test_a_model_with_nan_inside_is_named(here: Path, run: Run) -> None:
    path = here / "model.onnx"
    proto = onnx.load(path)
    (weight,) = [item for item in proto.graph.initializer if item.name == "vit.blocks.1.mlp.fc1.bias"]
    weight.raw_data = b"\x00\x00\xc0\x7f" * (len(weight.raw_data) // 4)
    onnx.save(proto, path)
    manifest = json.loads((here / "model.onnx.json").read_text())
    from tofe_export.files.reading import sha256

    (here / "model.onnx.json").write_text(json.dumps(manifest | {"sha256": sha256(path)}))
    result = run("quantize", "--recipe", "few.toml", "--cache", "c.npz", *QUICK)
    assert result.returncode == 2, result.stderr
    assert "Calibration met NaN or infinity" in result.stderr
    assert "vit.blocks.1.mlp" in result.stderr
    assert not (here / "c.npz").exists()
