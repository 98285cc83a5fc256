"""Names on the Hugging Face hub in the place of files: downloaded into its cache once, and known by their commit.

`hf-hub:owner/name`, with `@REVISION` behind it where another than the newest is wanted; and `timm/NAME`, where no file
is called so. What is downloaded lies in the ordinary cache, `models--OWNER--NAME/snapshots/COMMIT`, which other
programs share, and which answers where there is no network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
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
from huggingface_hub.utils.tqdm import tqdm

from tofe_export.documents.hub import HubRevision
from tofe_export.errors import InputError, MissingError, TofeError
from tofe_export.files.names import CHECKPOINT, DEPLOYED, HUB_FILES, INDEX, WEIGHTS
from tofe_export.files.places import is_there
from tofe_export.files.reading import read_json

_SMALL = ["config.json", "preprocessor_config.json"]
_PREFIX = re.compile(r"hf[-_]hub:")
# None of them begins with a dot, so that none leads out of the cache.
_WORD = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_NAME = re.compile(rf"{_WORD}/{_WORD}(?:@{_WORD}(?:/{_WORD})*)?")
_OF_TIMM = re.compile(rf"timm/{_WORD}(?:@{_WORD})?")
_CACHED = re.compile(rf"models--({_WORD})--({_WORD})")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class _Silent(tqdm):
    """The bar of a few small files, which the client shows even where there is no terminal."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "disable": True})  # type: ignore[no-untyped-call]


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
    if not _NAME.fullmatch(name) or ".." in name:
        raise _not_a_name(path)
    repository, _, revision = name.partition("@")
    return HubName(repository, revision or None)


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
        found = snapshot_download(name.repository, revision=name.revision, allow_patterns=_SMALL, tqdm_class=_Silent)
        folder = Path(found)
        # By its commit from here on: all files are of one revision, and those in the cache need no network.
        complete = _download_weights(name.repository, folder.name)
    except HFValidationError:
        raise _not_a_name(path) from None
    except Exception as error:  # the hub's client raises many unrelated types when there is no network
        if isinstance(error, TofeError) or (isinstance(error, OSError) and error.errno is not None):  # of the disk
            raise
        raise _refusal(name, error, path) from error
    if not complete:
        raise InputError(
            f"{name} on the Hugging Face hub holds no weights that can be read here: "
            f"none of {', '.join(HUB_FILES)} and {CHECKPOINT}.",
            "Choose a repository that holds one of them, or download its file of weights, and name the file.",
            code="hub-no-weights",
            path=path,
        )
    return folder


def _download_weights(repository: str, commit: str) -> bool:
    """Fills the cache with the file of weights, and with an index its shards; False where the repository has none."""
    files = [CHECKPOINT, *HUB_FILES]  # in the order in which `checkpoint_file` takes them
    known = {file: try_to_load_from_cache(repository, file, revision=commit) for file in files}
    cached = [file for file, place in known.items() if isinstance(place, str)]
    for file in files:
        if known[file] is not None and file not in cached:  # the hub said before that it has no such file
            continue
        try:
            path = Path(hf_hub_download(repository, file, revision=commit))
            for shard in _shards(path) if file.endswith(INDEX) else ():
                hf_hub_download(repository, shard, revision=commit)
        except LocalEntryNotFoundError:
            if file in cached or not cached:
                raise
        except EntryNotFoundError:
            continue
        return True
    return False


def _shards(index: Path) -> list[str]:
    files = read_json(index).get("weight_map")
    names = {str(name) for name in files.values()} if isinstance(files, dict) else set()
    return sorted(name for name in names if re.fullmatch(_WORD, name))  # others would lead out of the cache


def _not_a_name(path: Path) -> InputError:
    message = f"{path} does not name a repository on the Hugging Face hub."
    step = "Write hf-hub:owner/name, or hf-hub:owner/name@revision."
    return InputError(message, step, code="hub-name", path=path)


def _refusal(name: HubName, error: Exception, path: Path) -> TofeError:
    """What to say of an error of the hub's client."""
    hub, log_in = "the Hugging Face hub", "log in: hf auth login"
    if isinstance(error, GatedRepoError):
        code, message = "hub-gated", f"{name.repository} on {hub} is open only to users whom its owners let in."
        step = f"Ask for access on its page, then {log_in}"
    elif isinstance(error, RevisionNotFoundError):
        code, message = "hub-no-revision", f"{name.repository} on {hub} has no revision {name.revision}."
        step = "Name a branch, a tag or a commit of it."
    elif isinstance(error, RepositoryNotFoundError):
        code, message = "hub-no-repository", f"There is no repository {name.repository} on {hub}, or it is private."
        step = f"Check the name{_tagged(name.repository)}; for a private one {log_in}"
    elif isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403):
        code, message = "hub-no-access", f"You may not read {name.repository} on {hub}."
        step = f"Check your token, or {log_in}"
    else:
        return _not_reached(name, error, path)
    return InputError(message, step, code=code, path=path)


def _tagged(repository: str) -> str:
    """timm calls repositories by network and training, where users often write the network alone."""
    owner, _, network = repository.partition("/")
    known = timm.get_pretrained_cfg(network) if owner == "timm" and timm.is_model(network) else None
    return f" (timm's own choice is {known.hf_hub_id})" if known is not None and known.hf_hub_id else ""


def _not_reached(name: HubName, error: Exception, path: Path) -> MissingError:
    download = f"hf download {name.repository} --local-dir DIR"
    if name.revision is not None:
        download = f"hf download {name.repository} --revision {name.revision} --local-dir DIR"
    unreached = f"The Hugging Face hub could not be reached ({type(error.__cause__ or error).__name__})"
    why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else unreached
    return MissingError(
        f"{why}, and the Hugging Face cache on this machine does not hold {name}.",
        f"Type on a machine with a network: {download}; bring DIR here, and name it.",
        code="hub-not-reached",
        path=path,
    )
