"""A failed, full or killed write leaves the old file whole and no litter."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tofe_export.artifacts.files import atomic_path, read_json, sha256, write_json
from tofe_export.artifacts.manifest import atomic_artefact, manifest_path, read_manifest
from tofe_export.errors import InputError, MissingError

MANIFEST = {
    "kind": "onnx",
    "source": {},
    "config": {},
    "tokens": 4,
    "keep": [2],
    "stages": [[0, 1]],
    "rearrange": "elide",
    "precision": "fp32",
    "gmacs": 1.0,
    "dense_gmacs": 2.0,
    "preprocessing": {},
    "preprocessing_sha256": "",
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
    with pytest.raises(MissingError, match="disk is full") as caught, atomic_path(target) as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.exit_code == 3
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


_KILLED = """
import sys, time
from pathlib import Path
from tofe_export.artifacts.files import atomic_path
with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def test_a_disk_that_is_really_full_is_named_as_such(tmp_path: Path) -> None:
    # /dev/full refuses every write as a full disk does, whoever writes.
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(MissingError, match="disk is full"), atomic_path(tmp_path / "file") as temporary:
        temporary.unlink()
        temporary.symlink_to("/dev/full")
        temporary.write_bytes(b"x")


def test_a_full_disk_at_the_manifest_leaves_the_old_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artefact = tmp_path / "model.onnx"
    with atomic_artefact(artefact) as draft:
        draft.path.write_bytes(b"old")
        draft.manifest = MANIFEST
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(self: Path, *_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(MissingError, match="disk is full"), atomic_artefact(artefact) as draft:
        draft.path.write_bytes(b"new")
        monkeypatch.setattr(Path, "write_text", full)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_a_killed_run_left_is_swept_away(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left, mine = tmp_path / f".file.{gone.pid}-x.part", tmp_path / f".file.{os.getpid()}-x.part"
    left.touch()
    mine.touch()
    write_json(tmp_path / "file", {})
    assert not left.exists()
    assert mine.exists(), "a run that is alive keeps its own"


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


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "\udcff"])
def test_json_that_is_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError):
        read_json(path)


def test_a_folder_is_no_target(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"), atomic_path(tmp_path):
        pass


def test_a_manifest_belongs_to_its_bytes(tmp_path: Path) -> None:
    artefact = tmp_path / "model.onnx"
    artefact.write_bytes(b"one")
    with pytest.raises(InputError, match=r"model\.onnx\.json does not exist"):
        read_manifest(artefact)
    with atomic_artefact(artefact) as draft:
        draft.path.write_bytes(b"one")
        draft.manifest = MANIFEST
    assert read_manifest(artefact)["sha256"] == sha256(artefact)
    artefact.write_bytes(b"two")
    with pytest.raises(InputError, match="does not belong"):
        read_manifest(artefact)
    with atomic_artefact(artefact) as draft:
        draft.path.write_bytes(b"three")
        draft.manifest = {**MANIFEST, "keep": "many"}
    with pytest.raises(InputError, match="no usable 'keep'"):
        read_manifest(artefact)
    write_json(manifest_path(artefact), {"schema": "something/else"})
    with pytest.raises(InputError, match="not a manifest"):
        read_manifest(artefact)
