"""A model, its manifest and its data are one thing: killed or failing anywhere, the old set is whole or the new one."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.artifacts import crash_points
from tests.files.test_writing import MANIFEST
from tests.helpers import refusal
from tofe_export.artifacts import manifests, sets
from tofe_export.artifacts.manifests import files_of, has_manifest, manifest_path, pending_path, read_manifest
from tofe_export.artifacts.sets import atomic_artifact
from tofe_export.documents.manifest import ExternalData, OnnxManifest
from tofe_export.errors import InputError, MissingError, TofeError
from tofe_export.files.reading import read_json, sha256
from tofe_export.files.writing import write_json


def code_of(target: Path) -> str:
    """Why the manifest of `target` is refused."""
    return refusal(read_manifest, target).code


def write_set(target: Path, content: bytes, data: bytes | None = None) -> None:
    crash_points.write_set(target, MANIFEST, content, data)


def whole_set(target: Path) -> tuple[bytes, bytes | None]:
    """Content and data of a set, once `read_manifest` has accepted it."""
    manifest = read_manifest(target)
    data = manifest.external_data
    content = target.read_bytes()
    if data is None:
        assert content.decode() == manifest.data
        return content, None
    assert content.decode() == manifest.data + data.file
    return manifest.data.encode(), data_of(target).read_bytes()


def data_of(target: Path) -> Path:
    """The file of external data that belongs to `target`."""
    data = read_manifest(target).external_data
    assert data is not None
    return target.with_name(data.file)


@pytest.mark.parametrize(
    ("exists", "before", "after"),
    [(True, b"old data", b"new data"), (True, None, None), (False, None, b"new data"), (True, b"x", None)],
)
def test_a_kill_at_any_step_leaves_the_old_set_or_the_new_one(
    tmp_path: Path, exists: bool, before: bytes | None, after: bytes | None
) -> None:
    words = [json.dumps(MANIFEST), json.dumps(exists), *("null" if d is None else d.decode() for d in (before, after))]
    subprocess.run([sys.executable, crash_points.__file__, tmp_path, *words], check=True)
    old, new = (b"old", before), (b"new", after)
    folders = sorted(tmp_path.iterdir())
    assert len(folders) > 10, "every rename and flush was tried"
    found = []
    for folder in folders:
        target = folder / "model.onnx"
        shutil.copytree(folder, copy := tmp_path / f"{folder.name} again")
        if target.exists():
            found.append(whole_set(target))
            assert found[-1] == whole_set(target), "whoever reads it next finds the same"
        else:
            assert not exists
            found.append(None)
        for again in (target, copy / "model.onnx"):
            write_set(again, b"next", b"other data")
            assert whole_set(again) == (b"next", b"other data")
            assert len(list(again.parent.iterdir())) == 3, "no litter survives the next run"
    first = found.index(new)
    assert 3 < first < len(folders) - 3
    assert found[:first] == [old if exists else None] * first
    assert found[first:] == [new] * (len(folders) - first)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("data", [None, b"new data"])
def test_a_failure_at_any_step_leaves_one_set_and_says_which(tmp_path: Path, code: int, data: bytes | None) -> None:
    def fail() -> None:
        raise OSError(code, os.strerror(code))

    reported = set()
    for number in range(100):
        target = tmp_path / str(number) / "model.onnx"
        write_set(target, b"old", b"old data")
        with pytest.MonkeyPatch.context() as patch:
            for name in crash_points.STEPS:
                patch.setattr(os, name, getattr(os, name))  # put back at the end
            crash_points.at_step(number, fail)
            try:
                write_set(target, b"new", data)
            except TofeError as error:
                refusal = error.code
            else:
                refusal = ""
        if not refusal:
            assert whole_set(target) == (b"new", data)
            if number > 12:
                break
            continue
        late = refusal == "manifest-pending"
        reported.add(late)
        assert (target.read_bytes()[:3] == b"new") is late
        assert whole_set(target) == ((b"new", data) if late else (b"old", b"old data"))
        assert late or len(list(target.parent.iterdir())) == 3, "the old set and nothing else"
    assert reported == {True, False}


def test_a_waiting_manifest_serves_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model.onnx"
    write_set(target, b"old")
    old = manifest_path(target).read_bytes()
    write_set(target, b"new")
    manifest_path(target).replace(pending_path(target))
    assert has_manifest(target)
    manifest_path(target).write_bytes(old)

    def refused(*_: object) -> None:
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refused)
        assert read_manifest(target).data == "new"
    assert manifest_path(target).read_bytes() == old
    assert read_manifest(target).data == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.json"]


def test_a_waiting_manifest_of_another_file_is_litter(tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    write_set(target, b"one")
    for text in ('{"schema": "tofe-export/manifest/1", "sha256": "00"}', "{", "[]"):
        pending_path(target).write_text(text)
        assert whole_set(target) == (b"one", None)
        manifest_path(target).rename(tmp_path / "aside")
        assert not has_manifest(target)
        assert code_of(target) == "manifest-missing"
        (tmp_path / "aside").rename(manifest_path(target))
    write_set(target, b"two")
    assert len(list(tmp_path.iterdir())) == 2


def test_data_is_hashed_and_travels_along(tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    write_set(target, b"graph", b"weights")
    manifest, data = read_manifest(target), data_of(target)
    assert data.name == f"model.onnx.{sha256(data)[:12]}.data"
    assert manifest.external_data == ExternalData(file=data.name, sha256=sha256(data), bytes=7)
    assert data in files_of(target)
    data.write_bytes(b"WEIGHTS")
    assert code_of(target) == "external-data-hash"
    data.rename(tmp_path / "elsewhere")
    error = refusal(read_manifest, target)
    assert (error.code, error.details["path"]) == ("external-data-missing", data)
    for wrong, field in (
        ({"file": "../x", "sha256": "", "bytes": 1}, "external_data.file"),
        ({"file": 3}, "external_data.file"),
        ("data", "external_data"),
    ):
        write_json(manifest_path(target), {**read_json(manifest_path(target)), "external_data": wrong})
        error = refusal(read_manifest, target)
        assert (error.code, error.details["field"]) == ("manifest-field", field)


def test_a_set_that_is_replaced_while_it_is_read_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "model.onnx"
    write_set(target, b"graph", b"weights")
    matching, replaced = manifests._matching, []

    def slow(artifact: Path) -> dict[str, Any]:
        content = matching(artifact)
        if not replaced:  # the old manifest was read, and now its data goes
            replaced.append(write_set(target, b"another graph", b"other weights"))
        return content

    monkeypatch.setattr(manifests, "_matching", slow)
    assert whole_set(target) == (b"another graph", b"other weights")


def test_a_manifest_made_from_another_names_no_data_of_that(tmp_path: Path) -> None:
    first, second = tmp_path / "model.onnx", tmp_path / "second.onnx"
    write_set(first, b"graph", b"weights")
    with atomic_artifact(second) as draft:
        draft.path.write_bytes(b"second")
        draft.manifest = read_manifest(first).replaced(data="second")
    assert whole_set(second) == (b"second", None)


def test_old_data_goes_unless_somebody_needs_it(tmp_path: Path) -> None:
    target, data = tmp_path / "model.onnx", []

    def export(content: bytes) -> None:
        write_set(target, b"graph", content)
        data.append(data_of(target))

    export(b"one")
    export(b"two")
    assert [path.exists() for path in data] == [False, True]
    (tmp_path / "copy.onnx").write_bytes(target.read_bytes())  # a copy without a manifest needs its data too
    export(b"three")
    assert [path.exists() for path in data] == [False, True, True]
    (tmp_path / "copy.onnx").write_bytes(b"")
    shutil.copy(manifest_path(target), tmp_path / "moved.onnx.json")
    export(b"four")
    assert [path.exists() for path in data] == [False, False, True, True]
    other = tmp_path / "model.onnx.notes.data"
    other.touch()
    (tmp_path / "moved.onnx.json").unlink()
    write_set(target, b"small")
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "copy.onnx", target, manifest_path(target), other])


def test_data_of_a_run_that_is_alive_stays(tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    write_set(target, b"old")
    with atomic_artifact(target) as draft:
        name = draft.write_data(lambda file: file.write(b"of the slower run"))
        write_set(target, b"faster")
        assert (tmp_path / name).exists()
        draft.path.write_bytes(b"slower" + name.encode())
        draft.manifest = OnnxManifest.model_validate({**MANIFEST, "data": "slower"})
    assert whole_set(target) == (b"slower", b"of the slower run")


def test_a_set_replaces_what_a_link_leads_to(tmp_path: Path) -> None:
    store, target = tmp_path / "store", tmp_path / "model.onnx"
    store.mkdir()
    target.symlink_to(store / "blob")
    for content, data in ((b"one", b"weights"), (b"two", b"other")):
        write_set(target, content, data)
        assert target.is_symlink()
        name = data_of(target).name
        assert (store / "blob").read_bytes() == content + name.encode()
        assert sorted(path.name for path in store.iterdir()) == ["blob", name]


def test_a_set_needs_regular_files(tmp_path: Path) -> None:
    manifest_path(tmp_path / "m.engine").symlink_to("/dev/null")
    for target in (Path("/dev/null"), tmp_path / "m.engine"):
        with pytest.raises(InputError) as caught, atomic_artifact(target):
            pass
        assert caught.value.code == "not-regular"


def test_nothing_is_done_when_the_disk_is_full_at_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "model.onnx"
    write_set(target, b"old", b"weights")

    def full(file: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(MissingError) as caught, atomic_artifact(target) as draft:
        draft.write_data(full)
    assert caught.value.code == "disk-full"
    assert whole_set(target) == (b"old", b"weights")
    assert len(list(tmp_path.iterdir())) == 3
    monkeypatch.setattr(sets, "sha256", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_set(target, b"new", b"weights")  # the very data that the old model needs
    monkeypatch.undo()
    assert whole_set(target) == (b"old", b"weights")


def test_a_manifest_of_other_data_is_told_by_size_and_by_content(tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    write_set(target, b"graph", b"weights")
    manifest = read_json(manifest_path(target))
    for change in ({"bytes": 8}, {"sha256": "0" * 64}, {"sha256": sha256(target)}):
        write_json(manifest_path(target), {**manifest, "external_data": {**manifest["external_data"], **change}})
        assert code_of(target) == "external-data-hash"
    nearly = manifest["sha256"][:-1] + ("0" if manifest["sha256"][-1] != "0" else "1")
    for other in (manifest["external_data"]["sha256"], nearly):
        write_json(manifest_path(target), {**manifest, "sha256": other})
        assert code_of(target) == "manifest-hash"


def test_data_that_a_waiting_manifest_or_something_unreadable_may_need_stays(tmp_path: Path) -> None:
    target, data = tmp_path / "model.onnx", []
    for content in (b"one", b"two", b"three"):
        write_set(target, b"graph", content)
        data.append(data_of(target))
        if content == b"one":
            shutil.copy(manifest_path(target), pending_path(tmp_path / "other.onnx"))
        elif content == b"two":
            pending_path(tmp_path / "other.onnx").unlink()
            (tmp_path / "odd.onnx").mkdir()  # cannot be read, even by root
    assert [path.exists() for path in data] == [True, True, True]
    (tmp_path / "odd.onnx").rmdir()
    write_set(target, b"small")
    assert [path.exists() for path in data] == [False, False, False]
