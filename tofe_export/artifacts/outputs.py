"""Every file a call reads and writes, looked at before its work begins.

Nothing that is read is overwritten, no two outputs are one file, a file is only replaced by its own kind, and what
cannot be written is said at once and not after an hour.
"""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tofe_export.artifacts.file_kinds import Kind, replaceable
from tofe_export.artifacts.manifests import files_of, manifest_path
from tofe_export.errors import InputError
from tofe_export.files.names import BUILT, readable
from tofe_export.files.places import STDOUT, is_stream, is_there, reason_of, resolved, writable
from tofe_export.files.reading import read_json


@dataclass(frozen=True)
class Output:
    """A file to write, and what will be in it; no path is one that is not wanted, `-` is standard output."""

    path: Path | None
    kind: Kind


def require_outputs(outputs: Iterable[Output], inputs: Iterable[Path | None] = ()) -> None:
    """Raises InputError for what would cost the user a file, or could not be written after the work.

    Args:
        outputs: every file the call writes; a model stands for its manifest too.
        inputs: every file it reads; a model stands for its manifest and external data, an engine also for the ONNX file
            beside it. None is one that was not given.
    """
    taken = [file for path in inputs if path is not None for file in companions(path)]
    wanted = [output for output in outputs if output.path is not None]
    if sum(output.path == STDOUT for output in wanted) > 1:
        raise InputError(
            "Two results would be mixed on standard output.", "Give - only once.", code="two-on-standard-output"
        )
    for path, kind in _files(wanted):
        name = readable(path)
        try:
            _refuse(path, kind, taken, name)
        except OSError as error:
            raise _refusal(path, f"{name} cannot be written: {reason_of(error)}.", "not-writable") from error
        taken.append(path)


def require_not_among(outputs: Iterable[Output], files: Iterable[Path]) -> None:
    """Raises InputError where an output lies there and is one of many files that are read, by whatever name."""
    paths = [output.path for output in outputs if output.path is not None and output.path != STDOUT]
    there = {identity: path for path in paths if (identity := _identity(path)) is not None}
    for file in files if there else ():
        identity = _identity(file)
        if identity in there:
            path = there[identity]
            raise _refusal(path, f"{readable(path)} would be overwritten, but it is also read.", "would-overwrite")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def companions(path: Path) -> list[Path]:
    """`path` and the files that belong to it: its manifest and external data; of one that was built its ONNX file."""
    if not path.name:  # a folder, which somebody else refuses
        return [path]
    artifacts = [path]
    if path.suffix in BUILT:
        with contextlib.suppress(InputError, OSError, ValueError, KeyError, TypeError):
            artifacts.append(path.with_name(read_json(manifest_path(path))["source"]["file"]))
    files = []
    for artifact in artifacts:
        files += files_of(artifact)
        with contextlib.suppress(OSError):  # weights by their name: the manifest that names them may be damaged or gone
            files += artifact.parent.glob(f"{glob.escape(artifact.name)}.*.data")
    return files


def beside(path: Path, suffix: str) -> Path:
    """The default output: `path` with another suffix; InputError where it has no name, as "." has none."""
    if not path.name:
        raise InputError(f"{readable(path)} is a folder, not a file.", "Name a file in it.", code="folder", path=path)
    return path.with_suffix(suffix)


def _files(outputs: Iterable[Output]) -> Iterator[tuple[Path, Kind]]:
    """Every file, manifests included, but for standard output."""
    for output in outputs:
        if output.path is None or output.path == STDOUT:
            continue
        yield output.path, output.kind
        if output.kind in (Kind.ONNX, Kind.ENGINE, Kind.PROGRAM):
            yield manifest_path(output.path), Kind.MANIFEST


def _refuse(path: Path, kind: Kind, taken: Iterable[Path], name: str) -> None:
    if is_stream(path):
        return
    if any(_same(path, other) for other in taken):
        message = f"{name} would be overwritten, but it is also read, or something else is written there."
        raise _refusal(path, message, "would-overwrite")
    if path.is_dir():
        raise _refusal(path, f"{name} cannot be written: it is a folder.", "folder", "Name a file in it.")
    target = resolved(path)
    if path.exists() and not writable(target):
        raise _refusal(path, f"{name} cannot be written: it is write-protected.", "write-protected")
    if (there := replaceable(target, kind)) is not None:
        message = f"{name} is {there}, which {kind} would replace."
        raise _refusal(path, message, "would-replace", "Choose another place, or delete it first.")
    require_folder(target.parent, name, target.name)


def require_folder(folder: Path, name: str = "", file: str = "") -> None:
    """Raises InputError for a folder that cannot be written or made.

    Args:
        folder: need not exist.
        name: what will be written there, for the message; default: the folder itself.
        file: its file name, whose length is tried.
    """
    name = name or readable(folder)
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if is_there(place))
    if not there.is_dir():
        raise _refusal(folder, f"{name} cannot be written: {readable(there)} is a file.", "file-for-folder")
    try:
        # By doing it: permissions tell root nothing of a read-only disk. Files are written beside their target first,
        # under a name that is longer by about as much.
        with tempfile.NamedTemporaryFile(prefix=f".{file}.{os.getpid()}-", suffix=".part", dir=there):
            pass
    except OSError as error:
        message = f"{name} cannot be written: {readable(there)} says {reason_of(error)}."
        raise _refusal(folder, message, "not-writable") from error


def _refusal(path: Path, message: str, code: str, next_step: str = "Choose another place for it.") -> InputError:
    return InputError(message, next_step, code=code, path=path)


def _same(path: Path, other: Path) -> bool:
    """Whether both are one file, by whatever name: links, hard links, systems that know no capital letters."""
    if resolved(path) == resolved(other):
        return True
    with contextlib.suppress(OSError):
        return path.samefile(other)
    return False
