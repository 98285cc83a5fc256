"""Names of files and folders as text, and folders of users that may not exist."""

import os
import pwd
from pathlib import Path

import pytest

from tofe_export.data.sources import open_source
from tofe_export.errors import InputError
from tofe_export.files.names import distinct_names, expanded, is_text, readable
from tofe_export.files.reading import read_json
from tofe_export.files.writing import write_json
from tofe_export.precision.calibrated import cache_folder
from tofe_export.precision.recipe import read_recipe


def test_any_name_is_text() -> None:
    assert readable("plain é") == "plain é"
    assert readable(Path("m\udcff.onnx")) == r"m\xff.onnx"
    assert readable("half \ud800") == r"half \ud800"
    assert is_text(Path("é"))
    assert not is_text(Path("m\udcff"))
    assert distinct_names([Path("a/m\udcff"), Path("b/m\udcff")]) == [r"a/m\xff", r"b/m\xff"]


def test_documents_hold_any_text(tmp_path: Path) -> None:
    document = {"name": "m\udcff \ud800 \x1b"}
    write_json(tmp_path / "d.json", document)
    assert read_json(tmp_path / "d.json") == document


def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(number: int) -> object:
        raise KeyError(number)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_homes_that_do_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    homeless(monkeypatch)
    for name in ("~", "~/images", "~nobody-of-that-name/images"):
        assert expanded(name) == Path(name)
        with pytest.raises(InputError):
            open_source(name, "any")
        with pytest.raises(InputError):
            read_recipe(f"{name}/r.toml")
    assert cache_folder() is None


def test_the_cache_folder_is_named_or_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / "home" / ".cache" / "tofe-export" / "calibration"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "tofe-export" / "calibration"
    (tmp_path / "file").touch()
    for unusable in (tmp_path / "file", Path("/proc")):
        monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(unusable))
        assert cache_folder() is None
