"""What a file is, told from its content, so that nothing is replaced by something else."""

from __future__ import annotations

import re
import stat
import zipfile
from enum import StrEnum
from pathlib import Path

from tofe_export.errors import InputError
from tofe_export.files.reading import parse_json

_HEAD = 4096  # bytes
_JSON_LIMIT = 1 << 26  # bytes; this program's own documents are far smaller
_PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")
_PROGRAMS = (b"ET12", b"TFL3")  # identifiers of the flatbuffers of ExecuTorch and LiteRT
TUNING_TITLE, TOKEN_MAP_TITLE = "tofe-export tune", "tofe-export predict"
"""Of the pictures that are written beside results, by which they are known among pictures of others."""
_PROTOBUF = re.compile(rb"\x08[\x01-\x20][\x12\x1a\x22\x28\x32\x3a\x42]", re.DOTALL)  # ir_version, then another field
_OWN_SCHEMA = re.compile(r"tofe-export/([a-z]+)(?:-several)?/\d+")


class Kind(StrEnum):
    """Kinds of files, in the words of a message."""

    CHECKPOINT = "a checkpoint"
    ONNX = "an ONNX model"
    ENGINE = "an engine"
    PROGRAM = "a program for phones"
    MANIFEST = "a manifest"
    VERIFY = "a result of verify"
    BENCH = "a result of bench"
    QUANTIZE = "a result of quantize"
    TUNING = "a result of tune"
    SENSITIVITY = "a ranking of layers by sensitivity"
    INSPECTION = "a result of inspect"
    DIAGNOSIS = "a result of doctor"
    JUNIT = "a JUnit file"
    PAGE = "an HTML page"
    PICTURE = "a picture"
    TUNING_PICTURE = "a picture of a tuning"
    TOKEN_MAP = "a token map"
    PREDICTIONS = "a result of predict"
    METRICS = "a training's metrics"
    CALIBRATION = "a calibration"
    RECIPE = "a recipe"
    ARCHIVE = "an archive"
    BINARY = "a binary file of another kind"
    TIMINGS = "a timing cache"  # opaque: never recognized, only written


_TITLES = {TUNING_TITLE: Kind.TUNING_PICTURE, TOKEN_MAP_TITLE: Kind.TOKEN_MAP}
_DOCUMENTS = {
    "manifest": Kind.MANIFEST,
    "verify": Kind.VERIFY,
    "bench": Kind.BENCH,
    "quantize": Kind.QUANTIZE,
    "tune": Kind.TUNING,
    "sensitivity": Kind.SENSITIVITY,
    "inspect": Kind.INSPECTION,
    "predict": Kind.PREDICTIONS,
    "doctor": Kind.DIAGNOSIS,
}


def replaceable(path: Path, kind: Kind) -> Kind | None:
    """What lies at `path` and would be lost by writing `kind` there; None where that is fine.

    Fine are nothing, an empty file, the same kind, and text that is nothing in particular. Devices and pipes are not
    looked into.

    Raises:
        OSError: it cannot be looked at.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        return None
    there = recognise(path)
    if there in (None, kind) or (there is Kind.BINARY and kind in (Kind.ENGINE, Kind.TIMINGS)):
        return None
    return there


def recognise(path: Path) -> Kind | None:
    """The kind of a regular file; None for text that is nothing in particular.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if path.suffix == ".engine":
        return Kind.ENGINE
    if head.startswith(b"PK\x03\x04"):
        return _zip(path)
    safetensors = head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size
    if head.startswith(b"\x80") or safetensors:
        return Kind.CHECKPOINT
    if _PROTOBUF.match(head):
        return Kind.ONNX
    if b"\0" in head:
        return _binary(head)
    return _text(path, head)


def _binary(head: bytes) -> Kind:
    if head[4:8] in _PROGRAMS:
        return Kind.PROGRAM
    if not head.startswith(_PICTURES):
        return Kind.BINARY
    titled = (kind for title, kind in _TITLES.items() if b"tEXtTitle\0" + title.encode() in head)
    return next(titled, Kind.PICTURE)


def _zip(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return Kind.CHECKPOINT  # cut off, perhaps; still somebody's
    if any(name.endswith("data.pkl") for name in names):
        return Kind.CHECKPOINT
    return Kind.CALIBRATION if {"key.npy", "counts.npy"} <= set(names) else Kind.ARCHIVE


def _text(path: Path, head: bytes) -> Kind | None:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(b"{"):
        return _json(path, head)
    if path.suffix == ".toml":
        return Kind.RECIPE
    if start.startswith((b"<!doctype html", b"<html")):
        return Kind.PAGE
    if not start.startswith(b"<"):
        return None
    return Kind.JUNIT if b"<testsuite" in start else Kind.PICTURE if b"<svg" in start else None


def _json(path: Path, head: bytes) -> Kind | None:
    if b'"phase"' in head.partition(b"\n")[0]:
        return Kind.METRICS
    if path.stat().st_size > _JSON_LIMIT:
        return None
    try:
        document = parse_json(path.read_bytes(), str(path), "")
    except InputError:
        return None
    schema = document.get("schema") if isinstance(document, dict) else None
    verb = _OWN_SCHEMA.fullmatch(schema) if isinstance(schema, str) else None
    return _DOCUMENTS.get(verb[1]) if verb else None
