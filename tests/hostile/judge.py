"""What may not come of any input: a traceback, a crash, a hang, a file lost, a file replaced that nobody named."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.hostile.case import ANY, Case

CANARY = "CANARY"
_LARGE = 64 << 20
_CACHES = ("tmp/torchinductor_*", "home/.cache", "home/.cache/*", "home/.config", "home/.config/*", "home/.triton*")
_OWN = (".stdout", ".stderr", ".begun")
_NOISE = (
    (r"\b[A-Z]\w{0,40}Warning: ", "a library's warning"),
    (r"\[[WEF]:onnxruntime", "ONNX Runtime's log"),
    (r"\[TRT\]|\[[WEF]\] ", "TensorRT's log"),
    (r"Exception ignored", "an exception that was ignored"),
    (r"libpng|TIFFReadDirectory|Corrupt JPEG|libjpeg", "an image library's log"),
    (r"terminate called|Segmentation fault|core dumped|malloc\(\)", "a crash of native code"),
    (r"Fatal Python error", "a crash of the interpreter"),
    (r"<(?:tofe_export|class|function|object|built-in)[ .]|object at 0x", "a Python object shown as such"),
    (r"\bINVALID_\w+ : |Status Message|onnxruntime/core|/onnxruntime_src", "ONNX Runtime's own words"),
)


@dataclass
class Verdict:
    """What was found: `faults` may not be; `notes` are softer; `code` is negative for a signal."""

    name: str
    command: str
    code: int | None = None
    seconds: float = 0.0
    cpu: float = 0.0
    peak_mib: int = 0
    skipped: str = ""
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    said: str = ""


Snapshot = Mapping[str, tuple[object, ...]]


def snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    """Every file below `root` (links not followed): kind, permissions, and content or what stands for it."""
    found: dict[str, tuple[object, ...]] = {}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = Path(folder, name)
            key = str(path.relative_to(root))
            if key not in _OWN:
                found[key] = _state(path)
    return found


def _state(path: Path) -> tuple[object, ...]:
    found = path.lstat()
    kind, mode = stat.S_IFMT(found.st_mode), stat.S_IMODE(found.st_mode)
    if kind == stat.S_IFLNK:
        return (kind, str(path.readlink()))
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        return (kind, mode, found.st_rdev)
    if kind != stat.S_IFREG:
        return (kind, mode)
    if found.st_size > _LARGE:
        return (kind, mode, found.st_size, found.st_mtime_ns)
    with path.open("rb") as file:
        return (kind, mode, hashlib.file_digest(file, "sha256").hexdigest())


def judge(case: Case, verdict: Verdict, before: Snapshot, after: Snapshot, complaint: str) -> None:
    """Adds what is wrong to `verdict`, whose `code` and `said` are known."""
    verdict.faults += [*_about_code(case, verdict), *_about_words(verdict), *_about_files(case, verdict, before, after)]
    verdict.notes += [*_about_noise(verdict), *_about_message(case, verdict, complaint)]


def _about_code(case: Case, verdict: Verdict) -> Iterator[str]:
    code = verdict.code
    if code is None:
        yield f"it did not end within {case.seconds:.0f} s"
    elif code < 0:
        yield f"it was ended by signal {-code}"
    elif code not in case.codes:
        wanted = ", ".join(map(str, sorted(case.codes)))
        what = "it exits with" if code in ANY else "it ends with the exit code"
        yield f"{what} {code}, not {wanted}"


def _about_words(verdict: Verdict) -> Iterator[str]:
    if "Traceback (most recent call last)" in verdict.said:
        yield "a traceback"
    if found := re.search(r"Something went wrong inside[^\n]*", verdict.said):
        yield f"a defect of the program: {found[0][:240]}"


def _about_files(case: Case, verdict: Verdict, before: Snapshot, after: Snapshot) -> Iterator[str]:
    failed = verdict.code not in (0, 1)
    for path, was in before.items():
        now = after.get(path)
        if now == was:
            continue
        named = _named(path, case.writes)
        if now is None:
            if not _named(path, case.removes):
                yield f"{path!r} is gone"
        elif not named:
            yield f"{path!r} was changed though it is no output"
        elif now[0] != was[0]:
            yield f"{path!r} was replaced by another kind of file"
        elif stat.S_ISDIR(int(str(was[0]))):
            continue
        elif failed and case.keeps_on_failure:
            yield f"{path!r} was changed by a run that failed ({verdict.code})"
    for path in sorted(set(after) - set(before)):
        if path == CANARY or path.endswith("/" + CANARY):
            yield "code from the input was run"
        elif path.endswith(".part"):
            yield f"{path!r} was left over"
        elif not _named(path, (*case.writes, *(f"/{cache}" for cache in _CACHES))):
            yield f"{path!r} was made though nobody asked for it"


def _named(path: str, patterns: tuple[str, ...]) -> bool:
    for pattern in patterns:
        whole = pattern[1:] if pattern.startswith("/") else f"work/{pattern}"
        if fnmatch.fnmatchcase(path, whole):
            return True
    return False


def _about_noise(verdict: Verdict) -> Iterator[str]:
    for pattern, what in _NOISE:
        if found := re.search(pattern, verdict.said):
            line = next(line for line in verdict.said[found.start() :].splitlines() or [""])
            yield f"{what}: {line[:120]}"
    if verdict.peak_mib > 4096:
        yield f"{verdict.peak_mib} MiB of memory"


def _about_message(case: Case, verdict: Verdict, complaint: str) -> Iterator[str]:
    if verdict.code not in (2, 3) or case.around.stderr not in ("file", "terminal"):
        return
    if not complaint.strip() and case.verb != "doctor":
        yield f"exit {verdict.code} without a word on standard error"
    elif case.verb != "doctor" and not re.search(r"Next:|Usage:|Try ", complaint):
        yield f"exit {verdict.code} without a next step"
