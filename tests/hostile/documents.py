"""Documents that verbs read: results of others (report, bench --baseline), recipes, calibration files."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.hostile.case import FINE, REFUSED, Case
from tests.hostile.commands import basic
from tests.hostile.kit import FEW
from tests.hostile.models import Spoil

_RUNS = FINE | REFUSED


def _write(content: str | bytes) -> Spoil:
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content.encode())


def edit(change: Callable[[dict[str, Any]], object]) -> Spoil:
    def spoil(path: Path) -> None:
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))

    return spoil


def at(where: str, value: Any) -> Spoil:
    """Sets what lies at "rows.0.p50_ms"; `...` removes it."""

    def change(document: Any) -> None:
        *before, last = where.split(".")
        for key in before:
            document = document[int(key) if key.isdecimal() else key]
        if value is ...:
            del document[last]
        else:
            document[int(last) if last.isdecimal() else last] = value

    return edit(change)


ANYTHING: dict[str, Spoil] = {
    "empty": _write(""),
    "text": _write("hello"),
    "null": _write("null"),
    "a list": _write("[1]"),
    "an empty object": _write("{}"),
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "UTF-16": lambda path: path.write_bytes(path.read_text().encode("utf-16")),
    "with a byte order mark": lambda path: path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes()),
    "not UTF-8": lambda path: path.write_bytes(path.read_bytes().replace(b'"', b'"\xff', 3)),
    "100,000 brackets": _write('{"schema": ' + "[" * 100_000),
    "a number of 10,000 digits": _write('{"schema": ' + "9" * 10_000 + "}"),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a link to itself": lambda path: (path.unlink(), path.symlink_to(path.name)),
    "a schema that is a list": edit(lambda document: document.update(schema=["x"])),
}
_ROW = "rows.1"
BENCH: dict[str, Spoil] = {
    "rows that are null": at("rows", None),
    "no rows": at("rows", []),
    "rows of text": at("rows", ["fast"]),
    "a time of zero": at(f"{_ROW}.p50_ms", 0),
    "a negative time": at(f"{_ROW}.p50_ms", -1.0),
    "a time that is not a number": at(f"{_ROW}.p50_ms", float("nan")),
    "an infinite time": at(f"{_ROW}.p90_ms", float("inf")),
    "a time that is text": at(f"{_ROW}.p99_ms", "fast"),
    "a time of 10^400": at(f"{_ROW}.p50_ms", 10**400),
    "a time of 1e-320": at(f"{_ROW}.p50_ms", 1e-320),
    "a time of 1e300": at(f"{_ROW}.p50_ms", 1e300),
    "a speed-up of 1e308": at(f"{_ROW}.speedup", 1e308),
    "a speed-up that is true": at(f"{_ROW}.speedup", True),
    "no speed-up": at(f"{_ROW}.speedup", ...),
    "an interval the wrong way round": edit(lambda d: d["rows"][1].update(speedup_low=9.0, speedup_high=0.1)),
    "an interval that is not a number": edit(
        lambda d: d["rows"][1].update(speedup_low=float("nan"), speedup_high=None)
    ),
    "a batch of 1.5": at(f"{_ROW}.batch", 1.5),
    "a batch of 10^30": at(f"{_ROW}.batch", 10**30),
    "a batch that is text": at(f"{_ROW}.batch", "one"),
    "a negative batch": at(f"{_ROW}.batch", -1),
    "a name that is null": at(f"{_ROW}.name", None),
    "a name of mathematics": at(f"{_ROW}.name", "$\\frac{1}{$.onnx"),
    "a name that begins with _": at(f"{_ROW}.name", "_hidden.onnx"),
    "a name of HTML": at(f"{_ROW}.name", "<script>alert(1)</script>.onnx"),
    "a name of 10,000 letters": at(f"{_ROW}.name", "n" * 10_000),
    "a name of control characters": at(f"{_ROW}.name", "a\x00b\x1b[2Jc\n\td\u202e"),
    "a name of a lone surrogate": at(f"{_ROW}.name", "\udcff"),
    "a backend that is a number": at(f"{_ROW}.backend", 5),
    "every row the same": edit(lambda d: d.update(rows=[d["rows"][1]] * 5)),
    "10,000 rows": edit(lambda d: d.update(rows=[{**d["rows"][1], "batch": n} for n in range(1, 2000)])),
    "only dense rows": edit(lambda d: d.update(rows=d["rows"][:1])),
    "a machine that is a list": at("machine", [1]),
    "a machine that is null": at("machine", None),
    "settings of text": at("settings", "quick"),
    "settings without threads": at("settings", {}),
    "threads that are a list": at("settings.threads", [1]),
    "versions of numbers": at("versions", {"torch": 2, "onnx": None}),
    "GMACs of zero": at(f"{_ROW}.gmacs", 0),
    "a baseline of its own that is text": at("baseline", "old"),
}
_GATE = tuple(what for what in BENCH if not what.startswith(("a baseline", "versions", "a time")))
VERIFY: dict[str, Spoil] = {
    "passed that is a text": at("passed", "yes"),
    "passed that is null": at("passed", None),
    "failures that are a number": at("failures", 5),
    "failures of markup": at("failures", ["<b>[red]</b>" * 100]),
    "stages that are null": at("stages", None),
    "no stages": at("stages", []),
    "stages of text": at("stages", ["one"]),
    "an overlap above 1": at("stages.0.selection_overlap", 7.0),
    "an overlap that is not a number": at("stages.0.selection_overlap", float("nan")),
    "an overlap that is text": at("stages.0.selection_overlap", "most"),
    "an infinite difference": at("stages.0.max_abs_same_selection", float("inf")),
    "an index of 10^9": at("stages.0.index", 10**9),
    "an index that is not a number": at("stages.0.index", float("nan")),
    "an infinite index": at("stages.0.index", float("inf")),
    "logits that are a list": at("logits", [1]),
    "logits that are null": at("logits", None),
    "a cosine of 5": at("logits.cosine_min", 5.0),
    "a negative difference": at("logits.max_abs", -1.0),
    "samples of zero": at("samples", 0),
    "samples that are infinite": at("samples", float("inf")),
    "samples of 10^400": at("samples", 10**400),
    "an agreement that is text": at("top1_agreement", "all"),
    "an accuracy above 1": edit(lambda d: d.update(accuracy={"reference": 5.0, "deployed": float("nan")})),
    "keep of text": at("keep", "8,4,2"),
    "keep of a number": at("keep", 5),
    "keep of nothing": at("keep", []),
    "a threshold without stages": edit(lambda d: d["threshold"].pop("stages")),
    "a histogram of text": at("threshold.stages.0.histogram", ["a"]),
    "a histogram of one": at("threshold.stages.0.histogram", [[1]]),
    "a histogram of 10^12 images": at("threshold.stages.0.histogram", [[1, 10**12], [10**12, 1]]),
    "an empty histogram": at("threshold.stages.0.histogram", []),
    "a negative histogram": at("threshold.stages.0.histogram", [[-5, -5]]),
    "costs of zero": edit(lambda d: d["threshold"].update(gmacs={"threshold": 0, "fixed": 0, "dense": 0})),
    "costs that are not numbers": edit(lambda d: d.update(gmacs=float("nan"), dense_gmacs=float("nan"))),
    "an error that is a text": at("error", "bad"),
    "an error that is empty": at("error", {}),
    "checks of numbers": at("checks", [1, 2]),
    "a model of mathematics": at("model", "$x_{$.onnx"),
    "a model of a lone surrogate": at("model", "\udcfe.onnx"),
    "a model that is a list": at("model", ["a"]),
    "overridden that is a list": at("overridden", [1]),
    "several of none": edit(lambda d: d.update(schema="tofe-export/verify-several/1", artefacts=[])),
    "several of itself a hundred times": edit(
        lambda d: d.update(artefacts=[dict(d)] * 100, schema="tofe-export/verify-several/1")
    ),
}
_LINE = {"phase": "tofe", "epoch": 1, "accuracy": 0.5, "val_accuracy": 0.5, "keep_mean": [0.5, 0.4, 0.3]}
_LINE |= {"keep_std": [0.1] * 3, "macs_ratio": 0.5, "macs_budget": 0.5}


def _lines(*changes: dict[str, Any]) -> Spoil:
    return _write("".join(json.dumps({**_LINE, "epoch": n, **change}) + "\n" for n, change in enumerate(changes, 1)))


METRICS: dict[str, Spoil] = {
    "empty": _write(""),
    "only line ends": _write("\n\r\n\n"),
    "text": _write("hello\nworld\n"),
    "a torn last line": _write(json.dumps(_LINE) + '\n{"phase": "to'),
    "a torn first line": _write('{"phase": "to\n' + json.dumps(_LINE)),
    "not UTF-8": _write(b"\xff\xfe\x00"),
    "with a byte order mark": _write(b"\xef\xbb\xbf" + json.dumps(_LINE).encode()),
    "a line that nests 100,000 deep": _write('{"a":' + "[" * 100_000 + "\n" + json.dumps(_LINE)),
    "a number of 10,000 digits": _write('{"epoch": ' + "9" * 10_000 + "}\n" + json.dumps(_LINE)),
    "a line of 10 MB": _write(json.dumps({**_LINE, "extra": "x" * 10_000_000})),
    "values that are not numbers": _lines({"val_accuracy": float("nan"), "macs_ratio": float("inf")}, {}),
    "an accuracy of 1e300": _lines({"val_accuracy": 1e300}, {"val_accuracy": -1e300}),
    "an epoch of 10^400": _lines({"epoch": 10**400}, {}),
    "keeps of another number each line": _lines({"keep_mean": [0.5]}, {"keep_mean": [0.5] * 7}, {"keep_mean": []}),
    "keeps of huge numbers": _lines({"keep_mean": [10**400, 0, 0]}, {}),
    "a phase nobody knows": _lines({"phase": "dream"}, {"phase": None}, {"phase": ["tofe"]}),
    "20,000 epochs": _lines(*({} for _ in range(20_000))),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}
_OTHER = FEW.replace("samples = 4", "")
RECIPES: dict[str, str | bytes] = {
    "empty": "",
    "not TOML": "{json: no}",
    "not UTF-8": b'[data]\nsource = "\xff"\n',
    "UTF-16": FEW.encode("utf-16"),
    "with a byte order mark": b"\xef\xbb\xbf" + FEW.encode(),
    "its table twice": FEW + FEW,
    "a key twice": FEW + "samples = 5\n",
    "a table nobody knows": FEW + "[oven]\nheat = 5\n",
    "a key nobody knows": FEW + "sample = 5\n",
    "data that is a list": "data = [1]\n",
    "no source": "[data]\nsamples = 4\n",
    "a source that is a number": "[data]\nsource = 5\n",
    "an empty source": '[data]\nsource = ""\n',
    "a source that is not there": '[data]\nsource = "nowhere"\n',
    "a source in a home that is not": '[data]\nsource = "~nobody-of-that-name/x"\n',
    "a source with a line end": '[data]\nsource = """images\n"""\n',
    "a source with NUL": '[data]\nsource = "a\\u0000b"\n',
    "samples of zero": _OTHER + "samples = 0\n",
    "samples that are true": _OTHER + "samples = true\n",
    "samples of 10^400": _OTHER + "samples = 1" + "0" * 400 + "\n",
    "samples of 10,000 digits": _OTHER + "samples = " + "9" * 10_000 + "\n",
    "samples that are a date": _OTHER + "samples = 2024-01-01\n",
    "a negative seed": FEW + "seed = -1\n",
    "a seed of 10^40": FEW + "seed = 1" + "0" * 40 + "\n",
    "a method nobody knows": FEW + '[ranges]\nmethod = "magic"\n',
    "a percentile that is not a number": FEW + "[ranges]\npercentile = nan\n",
    "an infinite percentile": FEW + "[ranges]\npercentile = inf\n",
    "a percentile of 50": FEW + "[ranges]\npercentile = 50\n",
    "a percentile of 1000": FEW + "[ranges]\npercentile = 1000.0\n",
    "a percentile of 10^400": FEW + "[ranges]\npercentile = 1" + "0" * 400 + "\n",
    "asymmetric": FEW + "[quantize]\nsymmetric = false\n",
    "nothing to quantize": FEW + "[quantize]\nattention = false\nhigh_precision = "
    '["patch_embed", "qkv", "proj", "fc1", "fc2", "approximator", "selector", "head"]\n',
    "a layer nobody knows": FEW + '[quantize]\nhigh_precision = ["brain"]\n',
    "layers that are numbers": FEW + "[quantize]\nhigh_precision = [1, 2]\n",
    "layers that are a text": FEW + '[quantize]\nhigh_precision = "head"\n',
    "an around nobody knows": FEW + '[quantize]\naround = "fp4"\n',
    "a quantile that is not a number": FEW + "[keep]\nquantile = nan\n",
    "a quantile of 2": FEW + "[keep]\nquantile = 2\n",
    "a keep that is a number": "keep = 5\n" + FEW,
    "deep tables": "[" + ".".join("a" * 1 for _ in range(5_000)) + "]\nb = 1\n" + FEW,
    "deep lists": "data = " + "[" * 100_000 + "\n",
}


def _cache(**arrays: Any) -> Spoil:
    """The calibration file with arrays of it replaced; `...` removes one."""

    def spoil(path: Path) -> None:
        import numpy as np

        with np.load(path, allow_pickle=False) as found:
            kept = {name: found[name] for name in found.files} | arrays
        content = io.BytesIO()
        np.savez(content, **{name: value for name, value in kept.items() if value is not ...})
        path.write_bytes(content.getvalue())

    return spoil


class _Code:
    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("touch CANARY",)


def _pickled(path: Path) -> None:
    import numpy as np

    _cache(names=np.array([_Code()], dtype=object))(path)


def _caches() -> dict[str, Spoil]:
    import numpy as np

    return {
        "empty": _write(b""),
        "text": _write("hello"),
        "cut in half": ANYTHING["cut in half"],
        "a pickle with code": lambda path: path.write_bytes(pickle.dumps(_Code())),
        "an array of objects with code": _pickled,
        "without counts": _cache(counts=...),
        "counts of text": _cache(counts=np.array(["a", "b"])),
        "counts of another shape": _cache(counts=np.zeros((2, 3))),
        "counts that are not numbers": _cache(counts=np.full((50, 2048), np.nan)),
        "limits that are not numbers": _cache(limits=np.array([np.nan] * 3)),
        "a done of -1": _cache(done=np.array(-1)),
        "a done of text": _cache(done=np.array("all")),
        "a done that is a list": _cache(done=np.zeros(3)),
        "a key that is not JSON": _cache(key=np.array("{")),
        "a key that nests": _cache(key=np.array("[" * 50_000)),
        "a key of something else": _cache(key=np.array('{"model": 1}')),
        "other names": _cache(names=np.array(["a", "b"])),
        "a folder": ANYTHING["a folder"],
    }


def cases() -> Iterator[Case]:
    """All of this family."""
    for name, own in (("bench.json", BENCH), ("verify.json", VERIFY), ("metrics.jsonl", METRICS)):
        for what, spoil in ({**ANYTHING, **own} if name != "metrics.jsonl" else own).items():
            yield _report(f"{name}: {what}", name, spoil)
    for what, spoil in {**ANYTHING, **{what: BENCH[what] for what in _GATE}}.items():
        yield basic(
            "documents", "bench", f"a baseline: {what}", "--baseline", "bench.json", kit=("bench.json",),
            prepare=lambda work, spoil=spoil: spoil(work / "bench.json"), codes=_RUNS,
        )  # fmt: skip
    for what, content in RECIPES.items():
        codes = REFUSED if what not in ("with a byte order mark", "samples of 10^400") else _RUNS
        spoil = _write(content)
        yield _recipe("quantize", what, spoil, codes)
        if what in (
            "not UTF-8",
            "deep lists",
            "a quantile that is not a number",
            "samples of 10,000 digits",
            "its table twice",
        ):
            yield _recipe("trt", what, spoil, codes, "--int8", "--recipe", "few.toml")
            yield _recipe("onnx", what, spoil, codes, "--keep-from", "few.toml")
    for what, spoil in _caches().items():
        yield basic(
            "documents", "quantize", f"a calibration: {what}", "--cache", "cal.npz", kit=("cal.npz",),
            prepare=lambda work, spoil=spoil: spoil(work / "cal.npz"), codes=REFUSED,
        )  # fmt: skip


def _report(what: str, name: str, spoil: Spoil) -> Case:
    def inert(work: Path, _: str) -> Iterator[str]:
        page = work / "run/report.html"
        if page.exists() and "<script>alert(1)" in page.read_text():
            yield "code from the input lies in the page"

    return basic(
        "documents", "report", what, instead={"1": "0"},
        prepare=lambda work: spoil(work / "run" / name), codes=_RUNS, check=inert,
    )  # fmt: skip


def _recipe(verb: str, what: str, spoil: Spoil, codes: frozenset[int], *more: str) -> Case:
    return basic(
        "documents", verb, f"a recipe: {what}", *more, kit=("few.toml", "images"),
        prepare=lambda work: spoil(work / "few.toml"), codes=codes,
    )  # fmt: skip
