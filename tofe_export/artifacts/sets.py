"""An artifact, its manifest and, above protobuf's limit, its external data: replaced together or not at all.

Files are renamed one by one, so a commit has an order that any reader can finish after a kill:

1. the data file takes its name, which tells its content, so that it replaces no data an older model needs;
2. the manifest waits under `.model.onnx.json.pending`;
3. the model is renamed into place: from here on the set is the new one, for `read_manifest` finds the waiting manifest;
4. the manifest takes its place;
5. data that no model of the folder names any more is removed.

Each step is on disk before the next one begins.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import mmap
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tofe_export.artifacts.manifests import finish, manifest_path, pending_path
from tofe_export.documents.manifest import AnyManifest, ExternalData
from tofe_export.errors import MissingError
from tofe_export.files.parts import folder_lock, part_of, remove_if_left, sync, sync_folder
from tofe_export.files.places import real_file, reason_of
from tofe_export.files.reading import sha256
from tofe_export.files.writing import explained, prepared

_HASH_DIGITS = 12


@dataclass
class Draft:
    """An artifact that is being made.

    Attributes:
        path: where to write it for now.
        manifest: what its manifest will say; fill it in before the draft is done. Its hashes are those of the files.
        data: what `write_data` wrote.
    """

    path: Path
    _target: Path
    _held: contextlib.ExitStack
    manifest: AnyManifest | None = None
    data: ExternalData | None = None

    def write_data(self, write: Callable[[BinaryIO], None]) -> str:
        """Writes the file of external data beside the artifact, once, with the function that writes its content.

        Returns:
            Its name, by which the artifact refers to it: `model.onnx.0123456789ab.data`, after the content's SHA-256.
        """
        part = self._held.enter_context(part_of(self._target))  # the model's mode, and locked until all is done
        with part.open("wb") as file:
            write(file)
        sync(part)
        digest = sha256(part)
        name = f"{self._target.name}.{digest[:_HASH_DIGITS]}.data"
        self.data = ExternalData(file=name, sha256=digest, bytes=part.stat().st_size)
        part.replace(part.with_name(name))
        return name


@contextlib.contextmanager
def atomic_artifact(target: Path) -> Iterator[Draft]:
    """Yields a draft; on success the whole set takes its place, else the old set stays, be it by a kill at any moment.

    Raises:
        InputError, MissingError: see `atomic_path`; or `target` is not a regular file.
    """
    described = manifest_path(target)
    with explained(target):
        file, described_file = prepared(target), prepared(described)
        with folder_lock(target.parent):
            finish(target)
        try:
            with part_of(file) as temporary, part_of(described_file) as part, contextlib.ExitStack() as held:
                draft = Draft(temporary, file, held)
                yield draft
                assert draft.manifest is not None
                draft.manifest = draft.manifest.replaced(sha256=sha256(temporary), external_data=draft.data)
                part.write_text(draft.manifest.to_json(), encoding="utf-8", errors="backslashreplace")
                sync(part)
                sync(temporary)
                _commit(target, file, temporary, part)
        finally:
            _remove_unneeded_data(file)


def _commit(target: Path, file: Path, temporary: Path, part: Path) -> None:
    pending = pending_path(target)
    with folder_lock(target.parent):
        finish(target)  # of another run that was killed meanwhile
        part.replace(pending)
        try:
            sync_folder(pending.parent)
            temporary.replace(file)
        except OSError:
            with contextlib.suppress(OSError):
                pending.unlink()
            raise
        try:
            sync_folder(file.parent)
            pending.replace(real_file(manifest_path(target)))
            sync_folder(pending.parent)
        except OSError as error:
            raise MissingError(
                f"{target} was replaced, but its manifest could not be put in its place ({reason_of(error)}).",
                f"It waits in {pending}: free some space, and whatever reads {target.name} next puts it there.",
                code="manifest-pending",
                path=target,
            ) from error


def _remove_unneeded_data(file: Path) -> None:
    """Removes data files made for `file` that nothing in the folder names and no live run holds."""
    pattern = re.compile(re.escape(file.name) + rf"\.[0-9a-f]{{{_HASH_DIGITS}}}\.data")
    with contextlib.suppress(OSError):
        for path in file.parent.glob(f"{glob.escape(file.name)}.*.data"):
            if pattern.fullmatch(path.name):
                remove_if_left(path, functools.partial(_named, path, file))


def _named(data: Path, model: Path) -> bool:
    """Whether `model`, an ONNX file or a manifest of the folder names `data`; what cannot be read may."""
    # Also a copy of the model under another ending, such as model.onnx.bak.
    patterns = ("*.onnx", "*.onnx.json", ".*.pending", f"{glob.escape(model.name)}*")
    others = {path for pattern in patterns for path in data.parent.glob(pattern) if path.suffix != ".data"}
    return any(_holds(path, os.fsencode(data.name)) for path in others | {model})


def _holds(path: Path, word: bytes) -> bool:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(word) >= 0
    except (ValueError, FileNotFoundError):  # an empty file cannot be mapped
        return False
    except OSError:
        return True
