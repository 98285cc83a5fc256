"""What is not a regular file is written into; links are followed; a replaced file keeps its mode."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.helpers import refusal
from tofe_export.artifacts.file_kinds import Kind
from tofe_export.artifacts.outputs import Output, require_outputs
from tofe_export.files.places import is_stream
from tofe_export.files.writing import atomic_path, write_bytes, write_json, write_text


def test_a_fifo_is_written_into(tmp_path: Path) -> None:
    fifo, found = tmp_path / "fifo", []
    os.mkfifo(fifo)
    for write in (lambda: write_text(fifo, "one"), lambda: _through_a_temporary_file(fifo)):
        reader = threading.Thread(target=lambda: found.append(fifo.read_text()))
        reader.start()
        write()
        reader.join()
    assert found == ["one", "two"]
    assert fifo.is_fifo()
    assert list(tmp_path.iterdir()) == [fifo]


def _through_a_temporary_file(target: Path) -> None:
    with atomic_path(target) as temporary:
        temporary.write_text("two")


def test_a_device_stays_a_device(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/dev/null")
    for device in (Path("/dev/null"), link):
        assert is_stream(device)
        require_outputs([Output(device, Kind.VERIFY), Output(device, Kind.JUNIT)])
        write_json(device, {"a": 1})
        assert device.is_char_device()
    assert link.is_symlink()
    assert refusal(write_text, Path("/dev/full"), "x").code == "disk-full"


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
@pytest.mark.parametrize("redirected", [True, False])
def test_standard_output_under_every_name(tmp_path: Path, name: str, redirected: bool) -> None:
    (tmp_path / "link").symlink_to("/dev/stdout")
    script = (
        "import sys; from pathlib import Path; from tofe_export.files.writing import write_json\n"
        f"print('before'); write_json(Path({name!r}), {{'é': 1}}); print('after')"
    )
    if redirected:  # to a regular file, which must neither be replaced nor written from its beginning
        with (tmp_path / "out").open("w") as out:
            subprocess.run([sys.executable, "-c", script], cwd=tmp_path, stdout=out, check=True)
        said = (tmp_path / "out").read_text()
    else:
        done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, check=True)
        said = done.stdout.decode()
    assert said == 'before\n{\n  "é": 1\n}\nafter\n'
    assert {path.name for path in tmp_path.iterdir()} <= {"link", "out"}


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    link, far, file = tmp_path / "link", tmp_path / "far", tmp_path / "store" / "file"
    far.symlink_to(link)
    link.symlink_to("store/file")
    require_outputs([Output(far, Kind.VERIFY)])
    for content in ("made", "replaced"):
        write_text(far, content)
        assert file.read_text() == content
        assert far.is_symlink()
        assert link.is_symlink()
        assert list(file.parent.iterdir()) == [file]
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    assert refusal(write_text, circle, "x").code == "not-writable"


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o755])
def test_a_replaced_file_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    file, other = tmp_path / "file", tmp_path / "other name"
    file.write_text("old")
    file.chmod(mode)
    os.link(file, other)
    write_bytes(file, b"new")
    assert file.stat().st_mode & 0o777 == mode
    assert other.read_text() == "old", "another name of the old file keeps the old content"


def test_a_write_protected_file_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    allowed = os.access  # root may write everything
    monkeypatch.setattr(os, "access", lambda path, mode, **how: mode != os.W_OK and allowed(path, mode, **how))
    error = refusal(write_bytes, file, b"new")
    assert (error.code, error.details["path"]) == ("write-protected", file)
    assert file.read_text() == "old"


def test_a_reader_that_went_away_is_not_a_failure() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    write_text(Path(f"/dev/fd/{writing}"), "nobody reads this")
    os.close(writing)


def test_only_what_this_program_names_is_swept(tmp_path: Path) -> None:
    mine, left = tmp_path / ".model.onnx.backup-2.part", tmp_path / ".model.onnx.123-ab_d0f9x.part"
    for path in (mine, left):
        path.write_text("x")
    write_text(tmp_path / "model.onnx", "new")
    assert mine.exists()
    assert not left.exists()
