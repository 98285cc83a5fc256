"""ONNX Runtime for arm64 computes what ONNX Runtime computes here. Correctness alone: QEMU says nothing about speed."""

from pathlib import Path

import numpy as np
import pytest

import tofe_export as tofe
from tests.helpers import SMALL_KEEP, save_small, small_images
from tests.readers import operators
from tests.readers.arm64 import PROCESSORS, require_arm64, run_on_arm64
from tests.readers.comparing import require_same, run_in_onnxruntime
from tofe_export.runners.base import Array

pytestmark = pytest.mark.slow
FORMS = {
    "rearranged": {"rearrange": "plugin", "taps": True},
    "elided": {"rearrange": "elide", "taps": True},
    "inlined": {"inline": True, "taps": True},
    "served": {"input": "image", "outputs": "classes", "top": 3},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every form of one network, and the two operators alone."""
    require_arm64()
    folder = tmp_path_factory.mktemp("arm64")
    save_small(folder / "ckpt.pth")
    for name, options in FORMS.items():
        tofe.export(folder / "ckpt.pth", folder / f"{name}.onnx", keep=SMALL_KEEP, **options)
    tofe.export(folder / "ckpt.pth", folder / "plain.onnx", keep=SMALL_KEEP)
    tofe.quantize(
        folder / "plain.onnx", folder / "int8.onnx", recipe="matmuls", data="photos", batches=1, rounds=1, processes=1
    )
    files = {name: (folder / f"{name}.onnx").read_bytes() for name in [*FORMS, "int8"]}
    return {**files, "partition": operators.partition(), "rearrange": operators.rearrange()}


@pytest.fixture(scope="module")
def feeds() -> dict[str, dict[str, Array]]:
    scores, images = operators.scores(), small_images(3).numpy()
    images[2] = 0.25  # every patch alike, so that only their places tell them apart
    pixels = np.random.default_rng(0).integers(0, 256, (2, 45, 70, 3), dtype=np.uint8)
    parts = operators.expected_of(scores)
    return {
        **{name: {"images": images} for name in ("rearranged", "elided", "inlined", "int8")},
        "served": {"pixels": pixels},
        "partition": {"tokens": operators.tokens_for(scores), "scores": scores},
        "rearrange": {name: parts[name] for name in operators.PARTITION},
    }


def test_every_form_computes_the_same(
    models: dict[str, bytes], feeds: dict[str, dict[str, Array]], tmp_path: Path
) -> None:
    first, *others = [run_on_arm64(models, feeds, tmp_path / processor, processor) for processor in PROCESSORS]
    for name, content in models.items():
        require_same(run_in_onnxruntime(content, feeds[name]), first[name])
        for other in others:
            assert all(np.array_equal(value, first[name][key]) for key, value in other[name].items()), name
    require_same(operators.expected_of(operators.scores()), first["partition"])
    assert np.array_equal(first["rearrange"]["tokens"], feeds["partition"]["tokens"])
