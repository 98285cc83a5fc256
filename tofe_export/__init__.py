"""tofe-export: from a trained ToFe vision transformer to a verified, benchmarked deployment.

ToFe (token freezing and reusing, arXiv 2507.16260) lets only some patch tokens through the transformer blocks of each
stage. This package holds the model, its training, the ONNX export with fixed-size top-k, and the checks that the
deployed model agrees with the PyTorch one and is faster. Nothing heavy is imported before a name below is used.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

# ONNX Runtime from 1.30 on queues what it was used for in the user's cache folder, and sends it, as does MLflow;
# huggingface_hub, which timm downloads with, sends versions along. All read this when they are first imported. Whoever
# wants it sets 0.
for _name in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "MLFLOW_DISABLE_TELEMETRY"):
    os.environ.setdefault(_name, "1")

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tofe_export.api.bench import bench
    from tofe_export.api.build import build
    from tofe_export.api.demo import demo
    from tofe_export.api.doctor import doctor
    from tofe_export.api.export import export
    from tofe_export.api.inspect import inspect
    from tofe_export.api.load import load
    from tofe_export.api.optimize import optimize
    from tofe_export.api.package import package
    from tofe_export.api.predict import predict
    from tofe_export.api.program import program
    from tofe_export.api.quantize import quantize
    from tofe_export.api.report import report
    from tofe_export.api.sensitivity import sensitivity
    from tofe_export.api.train import train
    from tofe_export.api.tune import tune
    from tofe_export.api.verify import verify
    from tofe_export.artifacts.artifact import Artifact
    from tofe_export.checkpoints.checkpoint import Checkpoint
    from tofe_export.documents.benchmark import Benchmark
    from tofe_export.documents.manifest import Manifest
    from tofe_export.documents.prediction import Prediction, Predictions
    from tofe_export.documents.quantization import Quantization, Sensitivity
    from tofe_export.documents.tuning import Tuning
    from tofe_export.documents.verification import Verification, Verifications
    from tofe_export.errors import CheckFailedError, InputError, MissingError, TofeError

__all__ = [
    "Artifact",
    "Benchmark",
    "CheckFailedError",
    "Checkpoint",
    "InputError",
    "Manifest",
    "MissingError",
    "Prediction",
    "Predictions",
    "Quantization",
    "Sensitivity",
    "TofeError",
    "Tuning",
    "Verification",
    "Verifications",
    "bench",
    "build",
    "demo",
    "doctor",
    "export",
    "inspect",
    "load",
    "optimize",
    "package",
    "predict",
    "program",
    "quantize",
    "report",
    "sensitivity",
    "train",
    "tune",
    "verify",
]

_HOMES = {
    "Artifact": "artifacts.artifact",
    "Benchmark": "documents.benchmark",
    "Checkpoint": "checkpoints.checkpoint",
    "Manifest": "documents.manifest",
    "Prediction": "documents.prediction",
    "Predictions": "documents.prediction",
    "Quantization": "documents.quantization",
    "Sensitivity": "documents.quantization",
    "Tuning": "documents.tuning",
    "Verification": "documents.verification",
    "Verifications": "documents.verification",
    **dict.fromkeys(("CheckFailedError", "InputError", "MissingError", "TofeError"), "errors"),
}
"""Where a name lives; every other one is a function in the file of `api` that bears its name."""


def __getattr__(name: str) -> object:
    """A name of the public API, imported when it is first used (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOMES.get(name, f'api.{name}')}")
    value: object = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
