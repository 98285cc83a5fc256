"""The package as a library: the lines of its documentation, light to import, and the same in any order."""

import json
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
from PIL import Image

import tofe_export as tofe
from tests.helpers import small_tofe
from tofe_export.checkpoints.checkpoint import save
from tofe_export.data.preprocessing import Preprocessing

_HEAVY = ("torch", "numpy", "onnx", "pydantic", "timm", "rich", "typer")
CLASSES = ("black", "dark", "gray", "light", "white")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ckpt.pth of a small network of five classes, and a folder of noise in as many brightnesses."""
    folder = tmp_path_factory.mktemp("api")
    noise = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (folder / "images" / name).mkdir(parents=True)
        for index in range(5):
            pixels = noise.integers(0, 50, (40, 40, 3)) + 50 * label
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / name / f"{index}.png")
    model = small_tofe()
    checkpoint = tofe.Checkpoint(model, (0.5, 0.3, 0.2), Preprocessing.of_backbone(model.vit), {}, "images", CLASSES)
    save(folder / "ckpt.pth", checkpoint)
    return folder


def test_the_program_of_the_documentation(folder: Path) -> None:
    """DESIGN's lines in their order, each result fed to the next; `optimize` and `tune` are still to come."""
    images = folder / "images"
    ckpt = tofe.load(folder / "ckpt.pth")
    model = tofe.export(ckpt, folder / "model.onnx", keep=(8, 5, 3), data=images)
    assert model.manifest.keep == (8, 5, 3)
    once = {"batches": (1,), "rounds": 1, "processes": 1}
    int8 = tofe.quantize(model, data=images, recipe="digits", samples=8, cache=folder / "c.npz", **once)
    assert int8.path == folder / "model.int8.onnx"
    result = tofe.verify([model, int8], against=ckpt, data=images, samples=8)
    assert result.artifacts[0].passed, result.failures
    assert json.loads(result.to_json())["schema"] == "tofe-export/verify-several/1"
    rows = tofe.bench([model, int8], **once, threads=1).rows
    assert [row.dense for row in rows] == [True, False, True, False], "each precision has its own"
    first = images / "dark" / "0.png"
    by_file, by_checkpoint = (tofe.predict(one, [first])[0] for one in (model, ckpt))
    assert by_file.image == str(first)
    assert {one.name for one in by_file.classes} == set(CLASSES)
    assert sum(one.probability for one in by_file.classes) == pytest.approx(1)
    assert by_checkpoint.classes[0].probability == pytest.approx(by_file.classes[0].probability, abs=1e-4)
    pixels = np.random.default_rng(0).standard_normal((2, 3, 32, 32), dtype=np.float32)
    assert model.open().run(pixels)["logits"].shape == (2, 5)
    assert tofe.inspect(model).kind == "onnx"


def test_an_engine_is_built_from_an_artifact(folder: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    model = tofe.export(folder / "ckpt.pth", folder / "built.onnx", keep=(8, 5, 3))
    engine = tofe.build(model, precision="fp16", backend="rtx", batch=(1, 2, 4))
    assert engine.path == folder / "built.engine"
    assert engine.manifest.options.batch == "1:2:4"
    assert tofe.inspect(engine).kind == "engine"


@pytest.mark.parametrize("top", [0, -1])
def test_no_classes_cannot_be_predicted(folder: Path, top: int) -> None:
    with pytest.raises(tofe.InputError) as caught:
        tofe.predict(folder / "ckpt.pth", [], top=top)
    assert caught.value.code == "too-few-classes"


def test_errors_carry_a_code_and_speak_of_arguments(folder: Path) -> None:
    with pytest.raises(tofe.InputError) as caught:
        tofe.export(folder / "ckpt.pth", folder / "x.onnx", keep=(8, 5, 3), keep_from="digits")
    assert caught.value.code == "keep-conflict"
    assert "`keep_from`" in str(caught.value)
    assert "--" not in str(caught.value)


def test_results_are_immutable(folder: Path) -> None:
    checkpoint = tofe.load(folder / "ckpt.pth")
    model = tofe.export(checkpoint, folder / "frozen.onnx", keep=(8, 5, 3), outputs="logits")
    for thing, name in ((checkpoint, "data"), (model, "path"), (model.manifest, "keep")):
        with pytest.raises((AttributeError, ValueError)):
            setattr(thing, name, "x")


def test_importing_it_imports_nothing_heavy() -> None:
    code = f"import sys, tofe_export; print([name for name in {_HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_public_name_is_there_and_stays_itself_after_it_was_used() -> None:
    # Rooms of the same name would take the place of a function once they are imported.
    code = (
        "import tofe_export as t; names = {n: getattr(t, n) for n in t.__all__}; import tofe_export.cli.app; "
        "t.doctor(); print([n for n in t.__all__ if getattr(t, n) is not names[n]], set(t.__all__) <= set(dir(t)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] True\n"


@pytest.mark.parametrize("name", [name for name in tofe.__all__ if name.islower()])
def test_every_function_says_its_types_and_has_a_docstring(name: str) -> None:
    function = getattr(tofe, name)
    assert "return" in get_type_hints(function)
    assert function.__doc__
    with pytest.raises(AttributeError):
        getattr(tofe, f"{name}_")
