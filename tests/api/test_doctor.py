"""doctor says what is there, and turns red when something is not."""

import importlib.metadata

import pytest

from tofe_export.api.doctor import doctor
from tofe_export.documents.diagnosis import Diagnosis


def test_a_complete_machine_lacks_nothing() -> None:
    diagnosis = doctor()
    assert not diagnosis.missing
    assert all(installed != "-" for package, _, installed in diagnosis.matrix if package in ("torch", "onnxruntime"))
    assert Diagnosis.model_validate_json(diagnosis.to_json()) == diagnosis
    names = {row.name for row in diagnosis.rows}
    assert {"torch", "timm", "onnx", "onnxruntime", "GPU", "disk"} <= names


@pytest.mark.parametrize(("package", "command"), [("onnxruntime", "tofe-export[cpu]"), ("timm", "timm")])
def test_a_missing_package_is_named_with_the_command(
    monkeypatch: pytest.MonkeyPatch, package: str, command: str
) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name.startswith(package):
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    diagnosis = doctor()
    assert diagnosis.missing
    (row,) = [row for row in diagnosis.rows if row.name == package]
    assert row.status == "missing"
    assert command in row.next_step


def test_an_old_package_is_missing_too(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0.1" if name == "torch" else real(name))
    (row,) = [row for row in doctor().rows if row.name == "torch"]
    assert row.status == "missing"
    assert "is required" in row.value
