"""Writes a document of every schema by the real steps: python -m tests.documents.written FOLDER"""

import json
import sys
from pathlib import Path
from typing import Any

from tests.helpers import ONE_STAGE, small_tofe
from tofe_export.api.bench import bench
from tofe_export.api.doctor import doctor
from tofe_export.api.export import export
from tofe_export.api.inspect import inspect
from tofe_export.api.predict import predict
from tofe_export.api.quantize import quantize
from tofe_export.api.sensitivity import sensitivity
from tofe_export.api.tune import tune
from tofe_export.api.verify import verify
from tofe_export.artifacts.manifests import manifest_path
from tofe_export.checkpoints.checkpoint import Checkpoint, load, save
from tofe_export.data.preprocessing import Preprocessing

SETTINGS: dict[str, Any] = {"batches": (1,), "rounds": 2, "processes": 2, "threads": 1}
RECIPE = '[data]\nsource = "digits"\nsamples = 8\n'


def documents(folder: Path) -> dict[str, list[str]]:
    """Schema -> documents, as JSON texts."""
    model, recipe = small_tofe(num_classes=10), folder / "few.toml"
    recipe.write_text(RECIPE)
    preprocessing = Preprocessing.of_backbone(model.vit)
    save(folder / "ckpt.pth", Checkpoint(model, (0.5, 0.3, 0.2), preprocessing, {"loss": 0.5}, "digits"))
    checkpoint = load(folder / "ckpt.pth")
    artifact = export(checkpoint, folder / "model.onnx")
    short = Checkpoint(small_tofe(num_classes=10, **ONE_STAGE), (0.5,), preprocessing, {}, "digits")
    cache = folder / "ranges.npz"
    int8 = quantize(artifact, recipe=recipe, cache=cache, samples=8, **SETTINGS)
    first = bench([artifact, checkpoint], **SETTINGS)
    (folder / "cut.onnx").write_bytes(artifact.path.read_bytes())
    (folder / "cut.onnx.json").write_text("{")
    return {
        "bench": [first.to_json(), bench(artifact, baseline=first, **SETTINGS).to_json()],
        "doctor": [doctor().to_json()],
        "inspect": [inspect(one).to_json() for one in (checkpoint, artifact, int8)],
        "manifest": [manifest_path(one.path).read_text() for one in (artifact, int8)],
        "predict": [predict(one, "docs/images/token_map.png", top=2).to_json() for one in (checkpoint, artifact)],
        "quantize": [int8.quantization.to_json()],
        "sensitivity": [sensitivity(artifact, recipe=recipe, cache=cache, samples=8).to_json()],
        "tune": [tune(short, macs=0.9, samples=8, rounds=1, processes=1, threads=1).to_json()],
        "verify": [
            verify(artifact, against=checkpoint, samples=8).to_json(),
            verify(folder / "cut.onnx", against=checkpoint).to_json(),
        ],
        "verify-several": [verify([artifact, int8], against=checkpoint, samples=8).to_json()],
    }


if __name__ == "__main__":
    target = Path(sys.argv[1])
    (target / "documents.json").write_text(json.dumps(documents(target)))
