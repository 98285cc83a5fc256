"""Names on the Hugging Face hub in the place of files: downloaded into its cache once, and known by their commit.

`hf-hub:owner/name`, with `@REVISION` behind it where another than the newest is wanted; and `timm/NAME`, where no file
is called so. What is downloaded lies in the ordinary cache, `models--OWNER--NAME/snapshots/COMMIT`, which other
programs share, and which answers where there is no network.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants, hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from tofe_export.documents.manifest import HubRevision
from tofe_export.errors import InputError, MissingError, TofeError
from tofe_export.files.names import DEPLOYED, HUB_FILES, WEIGHTS
from tofe_export.files.places import is_there
from tofe_export.files.reading import read_json

_DESCRIPTIONS = ["config.json", "preprocessor_config.json"]
_INDEX = "model.safetensors.index.json"
_PREFIX = re.compile(r"hf[-_]hub:")
# None of them begins with a dot, so that none leads out of the cache.
_WORD = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_NAME = re.compile(rf"({_WORD}/{_WORD})(?:@({_WORD}(?:/{_WORD})*))?")
_OF_TIMM = re.compile(rf"timm/{_WORD}(?:@{_WORD})?")
_CACHED = re.compile(rf"models--({_WORD})--({_WORD})")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHARD = re.compile(_WORD)


@dataclass(frozen=True)
class HubName:
    """A repository on the hub, and a branch, tag or commit of it; None for the newest commit of its main branch."""

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.repository if self.revision is None else f"{self.repository} at {self.revision}"


def hub_name(path: Path) -> HubName | None:
    """The repository that is named in the place of a file; None for a file's own name.

    Raises:
        InputError: hf-hub: with something else behind it than a repository.
    """
    text = path.as_posix()
    prefix = _PREFIX.match(text)
    if prefix is None and (not _OF_TIMM.fullmatch(text) or path.suffix in (*WEIGHTS, *DEPLOYED) or is_there(path)):
        return None
    name = text if prefix is None else text[prefix.end() :]
    repository, _, revision = name.partition("@")
    if _NAME.fullmatch(name) and ".." not in name:
        with contextlib.suppress(HFValidationError):
            validate_repo_id(repository)
            return HubName(repository, revision or None)
    raise InputError(
        f"{path} does not name a repository on the Hugging Face hub.",
        "Write hf-hub:owner/name, or hf-hub:owner/name@revision.",
        code="hub-name",
        path=path,
    )


def pinned(path: Path, before: HubRevision | None) -> Path:
    """`path`, with the revision that was taken `before` where it names that repository and no revision itself."""
    name = hub_name(path)
    if name is None or name.revision is not None or before is None or name.repository != before.repository:
        return path
    return Path(f"hf-hub:{before.repository}@{before.revision}")


def origin_of(path: Path) -> HubRevision | None:
    """The repository and the commit of a file in the hub's cache; None for a file elsewhere."""
    commit = path.absolute().parent
    known = _CACHED.fullmatch(commit.parent.parent.name)
    if known is None or commit.parent.name != "snapshots" or not _COMMIT.fullmatch(commit.name):
        return None
    return HubRevision(repository=f"{known[1]}/{known[2]}", revision=commit.name)


def local(path: Path) -> Path:
    """The folder in the hub's cache that a name stands for, downloaded where it is not there yet; else `path` itself.

    Raises:
        InputError: no such repository or revision, one that this user may not read, or one without weights.
        MissingError: the hub cannot be reached, or HF_HUB_OFFLINE is set, and the cache does not hold the files.
    """
    name = hub_name(path)
    if name is None:
        return path
    try:
        folder = Path(snapshot_download(name.repository, revision=name.revision, allow_patterns=_DESCRIPTIONS))
        # By its commit from here on: all files are of one revision, and those in the cache need no network.
        weights = _weights(name.repository, folder.name)
    except Exception as error:  # the hub's client raises many unrelated types when there is no network
        if isinstance(error, TofeError) or (isinstance(error, OSError) and error.errno is not None):  # of the disk
            raise
        raise _refusal(name, error, path) from error
    if weights is None:
        raise InputError(
            f"{name} on the Hugging Face hub holds no weights that can be read here: "
            f"none of {', '.join((*HUB_FILES, _INDEX))}.",
            "Choose a repository that holds one of them, or download its file of weights, and name the file.",
            code="hub-no-weights",
            path=path,
        )
    return folder


def _weights(repository: str, commit: str) -> Path | None:
    """The file of weights, and with an index its shards too; None where the repository has none."""
    files = dict.fromkeys((*HUB_FILES, _INDEX))
    for file in files:  # first those that need no network, where it may be down
        cached = try_to_load_from_cache(repository, file, revision=commit)
        if isinstance(cached, str):
            return _with_shards(Path(cached), repository, commit)
    for file in files:
        try:
            return _with_shards(Path(hf_hub_download(repository, file, revision=commit)), repository, commit)
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            continue
    return None


def _with_shards(file: Path, repository: str, commit: str) -> Path:
    if file.name != _INDEX:
        return file
    shards = read_json(file).get("weight_map")
    for shard in sorted({str(name) for name in shards.values()} if isinstance(shards, dict) else ()):
        if _SHARD.fullmatch(shard):  # others lie elsewhere, or lead out of the cache
            hf_hub_download(repository, shard, revision=commit)
    return file


def _refusal(name: HubName, error: Exception, path: Path) -> TofeError:
    """What to say of an error of the hub's client."""
    log_in = "log in: hf auth login"
    if isinstance(error, GatedRepoError):
        return InputError(
            f"{name.repository} on the Hugging Face hub is open only to users whom its owners let in.",
            f"Ask for access on its page, then {log_in}",
            code="hub-gated",
            path=path,
        )
    if isinstance(error, RevisionNotFoundError):
        return InputError(
            f"{name.repository} on the Hugging Face hub has no revision {name.revision}.",
            "Name a branch, a tag or a commit of it.",
            code="hub-no-revision",
            path=path,
        )
    if isinstance(error, RepositoryNotFoundError):
        return InputError(
            f"The Hugging Face hub has no repository {name.repository}, or it is private.",
            f"Check the name; for a private one {log_in}",
            code="hub-no-repository",
            path=path,
        )
    if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403):
        message = f"The Hugging Face hub does not let you read {name.repository} (HTTP {error.response.status_code})."
        return InputError(message, f"Check your token, or {log_in}", code="hub-no-access", path=path)
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        message = f"{name} on the Hugging Face hub lacks a file that its index of weights names."
        return InputError(message, "Choose another revision of it.", code="hub-no-weights", path=path)
    return _not_reached(name, error, path)


def _not_reached(name: HubName, error: Exception, path: Path) -> MissingError:
    revision = "" if name.revision is None else f" --revision {name.revision}"
    unreached = f"The Hugging Face hub could not be reached ({type(error.__cause__ or error).__name__})"
    why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else unreached
    return MissingError(
        f"{why}, and its cache on this machine does not hold {name}.",
        f"Type on a machine with a network: hf download {name.repository}{revision} --local-dir DIR; "
        "bring DIR here, and name it.",
        code="hub-not-reached",
        path=path,
    )
