"""Surroundings that are missing, broken or tight: homes, temporary folders, variables, limits, working directories."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

from tests.hostile.case import ANY, FINE, REFUSED, Case, Surroundings
from tests.hostile.commands import basic

_RUNS = FINE | REFUSED
_WORKERS = ("train", "tune", "onnx", "optimize", "quantize", "trt", "verify", "bench", "predict", "inspect", "report")
_HOMES: dict[str, dict[str, str | None]] = {
    "HOME that is not there": {"HOME": "/nonexistent"},
    "HOME that is empty": {"HOME": ""},
    "HOME that is a file": {"HOME": "home.txt"},
    "HOME below /proc": {"HOME": "/proc/1/nowhere"},
}
_CACHES: dict[str, dict[str, str | None]] = {
    "XDG_CACHE_HOME a file": {"XDG_CACHE_HOME": "home.txt"},
    "XDG_CACHE_HOME empty": {"XDG_CACHE_HOME": ""},
    "XDG_CACHE_HOME in a home nobody has": {"XDG_CACHE_HOME": "~nobody-of-that-name/cache"},
    "XDG_CACHE_HOME below /proc": {"XDG_CACHE_HOME": "/proc/nowhere"},
    "XDG_CACHE_HOME not UTF-8": {"XDG_CACHE_HOME": "cache\udcff"},
    "XDG_CACHE_HOME of 5,000 letters": {"XDG_CACHE_HOME": "/tmp/" + "x" * 5000},
}
_TEMPORARY: dict[str, dict[str, str | None]] = {
    "TMPDIR that is not there": {"TMPDIR": "/nonexistent"},
    "TMPDIR that is a file": {"TMPDIR": "home.txt"},
    "TMPDIR that is empty": {"TMPDIR": ""},
}
_GPUS: dict[str, dict[str, str | None]] = {
    "CUDA_VISIBLE_DEVICES garbage": {"CUDA_VISIBLE_DEVICES": "garbage,-7,GPU-x"},
    "CUDA_VISIBLE_DEVICES empty": {"CUDA_VISIBLE_DEVICES": ""},
}
# Read when the interpreter or a library starts, so in a process of its own.
_AT_START: dict[str, tuple[dict[str, str | None], tuple[str, ...]]] = {
    "OMP_NUM_THREADS garbage": ({"OMP_NUM_THREADS": "many"}, ("bench", "verify", "optimize")),
    "OMP_NUM_THREADS 0": ({"OMP_NUM_THREADS": "0"}, ("bench",)),
    "OMP_NUM_THREADS -1": ({"OMP_NUM_THREADS": "-1"}, ("bench",)),
    "MPLBACKEND garbage": ({"MPLBACKEND": "garbage"}, ("report",)),
    "MPLBACKEND with a window": ({"MPLBACKEND": "tkagg"}, ("report",)),
    "MPLCONFIGDIR a file": ({"MPLCONFIGDIR": "home.txt"}, ("report", "tune")),
    "HOME not there, from the start": ({"HOME": "/nonexistent"}, ("report", "onnx", "doctor")),
    "PYTHONOPTIMIZE 2": ({"PYTHONOPTIMIZE": "2"}, ("onnx", "verify")),
    "LANG C without UTF-8": (
        {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, ("verify", "report", "doctor"),
    ),
    "LC_ALL garbage": ({"LC_ALL": "xx_YY.garbage"}, ("inspect", "doctor")),
    "KMP_AFFINITY garbage": ({"KMP_AFFINITY": "garbage", "MKL_NUM_THREADS": "x"}, ("verify",)),
    "SCIKIT_LEARN_DATA not there": ({"SCIKIT_LEARN_DATA": "/nonexistent"}, ("doctor",)),
    "a PATH that is empty": ({"PATH": ""}, ("trt", "doctor")),
    "HF_HOME a file": ({"HF_HOME": "home.txt", "HF_HUB_CACHE": "home.txt"}, ("train", "onnx")),
}  # fmt: skip
_NOWHERE = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_DOWNLOAD_TIMEOUT": "1"}


def _file(work: Path) -> None:
    (work / "home.txt").write_text("not a folder")


def cases() -> Iterator[Case]:
    """All of this family."""
    yield from _variables()
    yield from _users()
    yield from _limits()
    for verb in (*_WORKERS, "doctor"):
        yield basic("environments", verb, "a working directory that was deleted",
                    around=Surroundings(folder="deleted"), codes=ANY)  # fmt: skip


def _variables() -> Iterator[Case]:
    for verb in ("quantize", "onnx", "train", "verify"):
        for what, environment in _HOMES.items():
            yield _with(verb, what, environment)
    for what, environment in _CACHES.items():
        yield _with("quantize", what, environment, writes=("cache*",))
    yield _with("trt", "XDG_CACHE_HOME a file", _CACHES["XDG_CACHE_HOME a file"], "--int8", "--recipe", "few.toml",
                kit=("few.toml", "images"))  # fmt: skip
    for verb in ("tune", "onnx", "optimize", "quantize", "trt", "report", "bench"):
        for what, environment in _TEMPORARY.items():
            yield _with(verb, what, environment)
    for verb in ("train", "bench", "verify", "doctor"):
        for what, environment in _GPUS.items():
            yield _with(verb, what, environment)
    for what, (environment, verbs) in _AT_START.items():
        for verb in verbs:
            yield _with(verb, what, environment, real=True, writes=("cache*",))
    yield _with("train", "no network for --pretrained", _NOWHERE, "--pretrained", codes=frozenset({2, 3}))
    yield _with("train", "HF_HUB_OFFLINE for --pretrained", {"HF_HUB_OFFLINE": "1"}, "--pretrained",
                codes=frozenset({2, 3}))  # fmt: skip
    yield _with("train", "a proxy that is none", {**_NOWHERE, "HTTP_PROXY": "nonsense", "HTTPS_PROXY": "::"},
                "--pretrained", codes=frozenset({2, 3}))  # fmt: skip
    yield basic("environments", "report", "a matplotlibrc of nonsense where one stands", real=True, codes=_RUNS,
                prepare=lambda work: Path(work, "matplotlibrc").write_text("font.size: x\n"))  # fmt: skip
    for name in ("digits", "photos"):
        yield basic("environments", "verify", f"a folder called {name} where one stands", instead={"images": name},
                    prepare=lambda work, name=name: (work / "images").rename(work / name), codes=_RUNS)  # fmt: skip


def _with(verb: str, what: str, environment: dict[str, str | None], *more: str, **changes: object) -> Case:
    changes = {"codes": ANY, "prepare": _file, **changes}
    return basic("environments", verb, what, *more, around=Surroundings(environment=environment), **changes)


def _users() -> Iterator[Case]:
    """A user who is in no list of users, has no home, and may not write everywhere."""
    nobody = Surroundings(environment={"HOME": None, "USER": None})
    for verb in (*(verb for verb in _WORKERS if verb != "trt"), "doctor"):
        yield basic("environments", verb, "a user without a name and a home", around=nobody, codes=ANY)
    yield basic("environments", "onnx", "~ of a user without a home", instead={"images": "~/images"}, around=nobody,
                codes=REFUSED)  # fmt: skip
    yield basic("environments", "quantize", "a recipe in ~ of a user without a home", around=nobody, codes=REFUSED,
                instead={"few.toml": "~/few.toml"})  # fmt: skip
    shut = Surroundings(environment={"HOME": "/root"})
    for verb in ("quantize", "report", "onnx"):
        yield basic("environments", verb, "a HOME of somebody else", around=shut, codes=ANY)
    locked = Surroundings(folder="read-only")
    for verb in _WORKERS:
        yield basic("environments", verb, "a working directory that may not be written", around=locked, codes=ANY)
    for mask in (0o777, 0o277):
        around = Surroundings(umask=mask)
        for verb, more, writes in (
            ("onnx", (), ()), ("optimize", (), ()), ("tune", (), ()), ("train", (), ()), ("report", (), ()),
            ("verify", ("--json", "v.json"), ("v.json",)),
            ("quantize", ("--cache", "c.npz"), ("c.npz",)),
        ):  # fmt: skip
            yield basic("environments", verb, f"a umask of {mask:o}", *more, around=around, codes=ANY, writes=writes)


def _limits() -> Iterator[Case]:
    for files in (8, 16, 40):
        for verb in _WORKERS:
            around = Surroundings(limits={resource.RLIMIT_NOFILE: files})
            if files == 16 or verb in ("train", "onnx", "report"):
                yield basic("environments", verb, f"at most {files} open files", around=around, codes=ANY)
    one = Surroundings(limits={resource.RLIMIT_NPROC: 1})
    for verb, more in (("bench", ("--threads", "2")), ("verify", ()), ("train", ("--workers", "2")), ("onnx", ()),
                       ("optimize", ("--for", "openvino")), ("tune", ("--threads", "2"))):  # fmt: skip
        yield basic("environments", verb, "no threads and no processes", *more, around=one, codes=ANY)
    small = Surroundings(limits={resource.RLIMIT_STACK: 256 << 10})
    for verb in ("onnx", "verify"):
        yield basic("environments", verb, "a stack of 256 KiB", around=small, codes=ANY)
    for verb in ("onnx", "optimize", "quantize", "tune", "verify", "train", "trt"):
        yield basic(
            "environments", verb, "hardly more memory than it has", around=Surroundings(spare=64 << 20), codes=ANY
        )
    for verb in ("doctor", "inspect", "onnx"):
        around = Surroundings(limits={resource.RLIMIT_AS: 1 << 30})
        yield basic("environments", verb, "1 GiB of addresses from the start", around=around, codes=ANY, real=True)
