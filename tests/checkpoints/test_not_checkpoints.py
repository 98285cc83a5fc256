"""Files that are not checkpoints are told by what they hold, and the next step leads somewhere."""

from __future__ import annotations

import argparse
import collections
import gzip
import io
import json
import pathlib
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from tests.checkpoints.published_files import HINTED, plain
from tests.helpers import refused_as
from tofe_export.checkpoints.checkpoint import load
from tofe_export.checkpoints.foreign import Hints

TINY = Hints(backbone="deit_tiny_patch16_224", backbone_args=HINTED)


def torchscript(path: Path) -> None:
    with pytest.warns(Warning, match=r"torch\.jit"):
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))


def program(path: Path) -> None:
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),)), path)


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ckpt.pth", b"x")


def tarred(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("ckpt.pth"), io.BytesIO())


STRANGERS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "TorchScript": (torchscript, "a TorchScript program", "torch.jit.load"),
    "pt2": (program, "an exported PyTorch program", "torch.save"),
    "npz": (
        lambda path: np.savez(path.open("wb"), kernel=np.array([print], object)),
        "a NumPy archive",
        "Copy it again",
    ),
    "npy": (lambda path: np.save(path.open("wb"), np.zeros(3)), "a single NumPy array", "torch.save"),
    "zip": (zipped, "a ZIP archive", "unzip"),
    "tar": (tarred, "a tar archive", "tar -xf"),
    "gzip": (lambda path: path.write_bytes(gzip.compress(b"weights")), "compressed with gzip", "gunzip"),
    "LFS": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "Git LFS",
        "pull",
    ),
    "page": (lambda path: path.write_text("\n<!DOCTYPE html><html>Sign in</html>"), "a web page", "download"),
    "index": (
        lambda path: path.write_text(json.dumps({"metadata": {"total_size": 9}, "weight_map": {"a": "b"}})),
        "the index of a checkpoint in several files",
        ".index.json",
    ),
    "JSON": (lambda path: path.write_text('{"a": 1}'), "a JSON file", "weights"),
    "HDF5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64)), "an HDF5 file", "timm's names"),
    "nothing": (lambda path: path.write_bytes(b""), "empty", "Copy it again"),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(("write", "what", "next_step"), STRANGERS.values(), ids=STRANGERS)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stranger_is_named(
    write: Callable[[Path], object], what: str, next_step: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"file{suffix}"
    write(path)
    with refused_as("not-a-checkpoint", path=path) as caught:
        load(path)
    assert what in caught.value.message
    assert next_step in caught.value.next_step


def test_a_format_is_known_whatever_the_name(tmp_path: Path) -> None:
    weights = dict(plain(tmp_path / "p.safetensors").vit.state_dict())  # torch's, under the other name
    assert load(tmp_path / "p.safetensors", TINY).model.config.backbone == TINY.backbone
    safetensors.torch.save_file(weights, tmp_path / "s.pth")
    assert load(tmp_path / "s.pth", TINY).model.config.backbone == TINY.backbone


def test_harmless_objects_beside_the_weights_are_read(tmp_path: Path) -> None:
    counts: Any = collections.defaultdict(list)
    counts["a"].append(1)
    beside = {
        "best": np.float64(0.5),
        "epochs": np.int64(3),
        "curve": np.arange(3, dtype=np.float32),
        "where": pathlib.PosixPath("/data"),
        "there": pathlib.PureWindowsPath("C:/data"),
        "counts": counts,
        "order": collections.OrderedDict(a=1),
        "args": argparse.Namespace(output=pathlib.PosixPath("out"), lr=np.float32(0.1), names={"a", "b"}),
    }
    plain(tmp_path / "p.pth", **beside)
    assert load(tmp_path / "p.pth", TINY).recognised == "plain backbone, dense"


class Own:
    """Of somebody's training code."""


def test_any_other_object_is_named(tmp_path: Path) -> None:
    plain(tmp_path / "p.pth", trainer=Own())
    with refused_as("pickle-runs-code", path=tmp_path / "p.pth") as caught:
        load(tmp_path / "p.pth")
    assert f"{Own.__module__}.Own" in caught.value.message


def test_an_address_is_no_file() -> None:
    with refused_as("address") as caught:
        load(Path("https://example.org/deit.pth"))
    assert "Download it" in caught.value.next_step
