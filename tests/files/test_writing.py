"""A failed, full or killed write leaves the old file whole and no litter."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import refusal
from tofe_export.artifacts.manifests import has_manifest, manifest_path, read_manifest
from tofe_export.artifacts.sets import atomic_artifact
from tofe_export.documents.manifest import OnnxManifest
from tofe_export.errors import InputError, MissingError
from tofe_export.files import parts
from tofe_export.files.names import distinct_names
from tofe_export.files.parts import sweep
from tofe_export.files.places import is_there, resolved
from tofe_export.files.reading import read_json, read_toml, require_file, sha256
from tofe_export.files.writing import atomic_path, write_json

MANIFEST: dict[str, Any] = {
    "kind": "onnx",
    "source": {"file": "ckpt.pth", "sha256": "00"},
    "config": {
        "backbone": "vit_tiny_patch16_224",
        "backbone_args": {"img_size": 32, "patch_size": 16, "depth": 4},
        "stage_starts": [3],
        "selector": "mlp",
        "approximator": "bottleneck",
        "dense_output": False,
    },
    "tokens": 4,
    "prefix": 1,
    "keep": [2],
    "stages": [[3, 4]],
    "rearrange": "elide",
    "precision": "fp32",
    "gmacs": 1.0,
    "dense_gmacs": 2.0,
    "preprocessing": {
        "height": 32,
        "width": 32,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "crop_pct": 0.9,
    },
    "preprocessing_sha256": "",
    "data": "digits",
    "options": {"opset": 20, "taps": False, "keep_source": "given"},
    "versions": {"tofe_export": "0.1.0"},
}


def test_an_exception_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(MissingError) as caught, atomic_path(target) as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert (caught.value.code, caught.value.exit_code) == ("disk-full", 3)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


_KILLED = """
import sys, time
from pathlib import Path
from tofe_export.files.writing import atomic_path
with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def test_a_disk_that_is_really_full_is_named_as_such(tmp_path: Path) -> None:
    # /dev/full refuses every write as a full disk does, whoever writes.
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(MissingError) as caught, atomic_path(tmp_path / "file") as temporary:
        temporary.unlink()
        temporary.symlink_to("/dev/full")
        temporary.write_bytes(b"x")
    assert caught.value.code == "disk-full"


def test_a_full_disk_at_the_manifest_leaves_the_old_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = tmp_path / "model.onnx"
    with atomic_artifact(artifact) as draft:
        draft.path.write_bytes(b"old")
        draft.manifest = OnnxManifest.model_validate(MANIFEST)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(self: Path, *_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(MissingError) as caught, atomic_artifact(artifact) as draft:
        draft.path.write_bytes(b"new")
        draft.manifest = OnnxManifest.model_validate(MANIFEST)
        monkeypatch.setattr(Path, "write_text", full)
    assert caught.value.code == "disk-full"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_a_killed_run_left_is_swept_away(tmp_path: Path) -> None:
    # Whatever process its name tells: in a container it is number 1 each time, and that one is always alive.
    left = tmp_path / f".file.{os.getpid()}-x_0abcde.part"
    left.touch()
    write_json(tmp_path / "file", {})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


_WRITING = """
import sys
from pathlib import Path
from tofe_export.files.writing import atomic_path
with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_text("slower")
    print(temporary, flush=True)
    input()
"""
_ELSEWHERE = ("unshare", "--pid", "--fork")  # a PID namespace of its own, as in a container


@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_live_run_keeps_its_own(tmp_path: Path, elsewhere: bool) -> None:
    target, prefix = tmp_path / "file", _ELSEWHERE if elsewhere else ()
    if elsewhere and (not shutil.which("unshare") or subprocess.run([*_ELSEWHERE, "true"], check=False).returncode):
        pytest.skip("no PID namespace can be made here")
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", _WRITING, target], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    part = Path(process.stdout.readline().strip())
    assert part.parent == tmp_path
    if not elsewhere:  # a number of a process that is not here, as seen from another namespace
        process_elsewhere = subprocess.Popen([sys.executable, "-c", ""])
        process_elsewhere.wait()
        os.link(part, tmp_path / f".file.{process_elsewhere.pid}-x_0abcde.part")
    write_json(target, {})
    assert part.exists()
    assert len(list(tmp_path.iterdir())) == (2 if elsewhere else 3)
    process.communicate("\n")
    assert process.returncode == 0
    assert target.read_text() == "slower"


def test_a_part_that_a_sweeper_took_at_once_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Between its creation and its lock nothing tells that a file belongs to somebody.
    parts = []
    create = tempfile.mkstemp

    def taken(**named: Any) -> tuple[int, str]:
        parts.append(create(**named))
        if len(parts) < 3:
            sweep(tmp_path / "file")
        return parts[-1]

    monkeypatch.setattr(tempfile, "mkstemp", taken)
    write_json(tmp_path / "file", {"a": 1})
    assert len(parts) == 3
    assert read_json(tmp_path / "file") == {"a": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_where_nobody_can_lock_nothing_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / ".file.1-x_0abcde.part"
    left.touch()

    def refused(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refused)
        write_json(tmp_path / "file", {})
    assert left.exists()
    monkeypatch.setattr(parts, "fcntl", None)  # as on Windows
    write_json(tmp_path / "file", {"a": 1})
    assert left.exists()
    assert read_json(tmp_path / "file") == {"a": 1}


def test_a_kill_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    process = subprocess.Popen([sys.executable, "-c", _KILLED, str(target)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert target.read_text() == "old"


def test_files_have_ordinary_permissions(tmp_path: Path) -> None:
    target, plain = tmp_path / "file", tmp_path / "plain"
    write_json(target, {"a": 1})
    plain.touch()
    assert target.stat().st_mode == plain.stat().st_mode
    assert read_json(target) == {"a": 1}


@pytest.mark.parametrize(
    ("content", "code"), [("", "not-json"), ("{", "not-json"), ("[1, 2]", "json-kind"), ("\udcff", "not-json")]
)
def test_what_is_not_a_json_object(tmp_path: Path, content: str, code: str) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert refusal(read_json, path).code == code
    assert refusal(read_json, tmp_path).code == "folder"
    assert refusal(read_json, tmp_path / "nowhere").code == "no-file"


def test_what_is_not_toml(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    for content in (b"{", b"\xff", b"a = " + b"[" * 5000):
        path.write_bytes(content)
        assert refusal(read_toml, path, "").code == "not-toml"
    assert refusal(read_toml, tmp_path / "nowhere", "").code == "no-file"


def test_a_folder_is_not_a_target(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught, atomic_path(tmp_path):
        pass
    assert caught.value.code == "folder"


def test_a_manifest_belongs_to_its_bytes(tmp_path: Path) -> None:
    artifact = tmp_path / "model.onnx"
    artifact.write_bytes(b"one")
    assert refusal(read_manifest, artifact).code == "manifest-missing"
    with atomic_artifact(artifact) as draft:
        draft.path.write_bytes(b"one")
        draft.manifest = OnnxManifest.model_validate(MANIFEST)
    written = read_json(manifest_path(artifact))
    assert read_manifest(artifact).sha256 == sha256(artifact)
    artifact.write_bytes(b"two")
    assert refusal(read_manifest, artifact).code == "manifest-hash"
    artifact.write_bytes(b"one")
    write_json(manifest_path(artifact), {**written, "keep": "many"})
    error = refusal(read_manifest, artifact)
    assert (error.code, error.details["field"]) == ("manifest-field", "keep")
    write_json(manifest_path(artifact), {"schema": "something/else"})
    assert refusal(read_manifest, artifact).code == "manifest-schema"


@pytest.mark.parametrize(
    ("name", "words"), [("x" * 300, "its name is too long"), ("loop", "its links lead in a circle")]
)
def test_a_name_under_which_nothing_can_lie(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    path = tmp_path / name
    for look in (is_there, require_file, read_json, read_manifest):
        error = refusal(look, path)
        assert error.code == "unreadable"
        assert words in error.message
    assert distinct_names([path, tmp_path / "other"]) == [name, "other"]
    assert resolved(path).name == name


def test_a_name_that_only_its_manifest_makes_too_long(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 250 + ".onnx")
    path.write_bytes(b"model")
    assert not has_manifest(path)
    assert refusal(read_manifest, path).code == "unreadable"


def test_nothing_lies_under_a_name_with_a_nul(tmp_path: Path) -> None:
    assert not is_there(tmp_path / "a\0b")
    assert refusal(require_file, tmp_path / "a\0b").code == "no-file"
