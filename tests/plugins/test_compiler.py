"""NVRTC without a driver: PTX that old drivers take, proven by ptxas, cached by what it was made from."""

import shutil
from pathlib import Path

import pytest
from tofe_plugins import compiler
from tofe_plugins.compiler import CompilerError, compile_source, lower_version, ptx, source_hash
from tofe_plugins.kernels import KERNELS, Kernel

from tests.plugins.ptxas import ARCHITECTURES, assemble, find_ptxas


@pytest.fixture(autouse=True)
def nvrtc() -> None:
    try:
        compiler.nvrtc_version()
    except CompilerError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.operator)
def test_ptx_for_old_drivers(kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ptx.cache_clear()
    text = ptx(kernel).decode()
    assert "\n.version 7.0\n" in text
    assert "\n.target sm_80\n" in text
    assert f".visible .entry {kernel.entry}(" in text
    assert text.count(".param") >= len(kernel.arguments)
    ptx.cache_clear()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.operator)
def test_ptxas_takes_it_for_every_gpu(kernel: Kernel, architecture: str) -> None:
    ptxas = find_ptxas()
    if ptxas is None:
        pytest.skip("there is no ptxas on this machine (pip install triton brings one)")
    report = assemble(ptxas, lower_version(compile_source(kernel)), architecture)
    assert "registers" in report
    assert "0 bytes spill stores" in report or "spill" not in report


def test_ptxas_would_refuse_what_a_driver_refuses() -> None:
    ptxas = find_ptxas()
    if ptxas is None:
        pytest.skip("there is no ptxas on this machine (pip install triton brings one)")
    newest = lower_version(compile_source(KERNELS[0])).replace(b".version 7.0", b".version 99.0")
    with pytest.raises(ValueError, match="ptxas refuses"):
        assemble(ptxas, newest, "sm_80")


def test_the_cache_knows_what_it_was_made_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kernel = KERNELS[0]
    before = source_hash(kernel)
    ptx.cache_clear()
    text = ptx(kernel)
    (cached,) = (tmp_path / "tofe-export" / "ptx").iterdir()
    cached.write_bytes(b"from the cache")
    ptx.cache_clear()
    assert ptx(kernel) == b"from the cache"
    cached.write_bytes(text)
    copy = tmp_path / "cuda"
    shutil.copytree(compiler.SOURCES, copy)
    (copy / "rows.cuh").write_text((copy / "rows.cuh").read_text() + "\n// changed\n")
    monkeypatch.setattr(compiler, "SOURCES", copy)
    assert source_hash(kernel) != before, "the shared header counts"
    ptx.cache_clear()


def test_a_home_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    ptx.cache_clear()
    assert b".version 7.0" in ptx(KERNELS[1])
    ptx.cache_clear()


def test_a_source_that_does_not_compile_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Kernel):
        @property
        def source(self) -> Path:
            return tmp_path / "broken.cu"

    (tmp_path / "broken.cu").write_text('extern "C" __global__ void broken() { nonsense; }')
    with pytest.raises(CompilerError, match=r"(?s)broken\.cu.*nonsense"):
        compile_source(Broken("Broken", "broken", (), (), ()))
