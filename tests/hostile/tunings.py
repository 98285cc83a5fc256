"""Results of `tune`: damaged, unfinished or of another network, read by an export or resumed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.hostile.case import FINE, REFUSED, Case
from tests.hostile.commands import basic
from tests.hostile.documents import ANYTHING, at, edit
from tests.hostile.models import Spoil

TUNE: dict[str, Spoil] = {
    "one that is not finished": at("finished", False),
    "finished that is a text": at("finished", "yes"),
    "keep of nothing": at("keep", []),
    "keep of zero": at("keep", [0]),
    "keep of 10^6": at("keep", [10**6]),
    "keep of text": at("keep", ["4"]),
    "keep that is null": at("keep", None),
    "keep of three stages": edit(lambda d: (d.update(keep=[2, 1, 1]), d["candidates"][0].update(keep=[2, 1, 1]))),
    "keep of three stages everywhere": edit(
        lambda d: d.update(keep=[2, 1, 1], candidates=[{**d["candidates"][0], "keep": [2, 1, 1]}], probes=[])
    ),
    "keep that is no candidate": edit(
        lambda d: d.update(candidates=[one for one in d["candidates"] if one["keep"] != d["keep"]])
    ),
    "no candidates": at("candidates", []),
    "candidates that are null": at("candidates", None),
    "weights of another": at("weights_sha256", "0" * 64),
    "weights that are null": at("weights_sha256", None),
    "another network": edit(lambda d: d["config"].update(stage_starts=[0])),
    "a network that is null": at("config", None),
    "a network that is a list": at("config", [1]),
    "10^9 tokens": at("tokens", 10**9),
    "one token": at("tokens", 1),
    "a checkpoint that is a path": at("checkpoint.file", "../../etc/passwd"),
    "a checkpoint of markup and of others": edit(
        lambda d: (d["checkpoint"].update(file="[red]x[/]\x1b[2J"), d.update(weights_sha256="0"))
    ),
    "a session of 0 threads": at("session", {"threads": 0}),
    "a session of 10^9 threads": at("session", {"threads": 10**9}),
    "a session of 1024 threads": at("session", {"threads": 1024, "spinning": True, "arena": False}),
    "a session that is a list": at("session", [1]),
    "spinning that is a text": at("session", {"spinning": "yes"}),
    "two goals": edit(lambda d: d["settings"].update(speedup=2.0)),
    "no goal": edit(lambda d: d["settings"].update(macs=None)),
    "a target nobody knows": edit(lambda d: d["settings"].update(target="tensorrt")),
}
_TUNE_FINE = ("a network that is null", "a session of 1024 threads", "two goals", "no goal", "with a byte order mark")
RESUMED: dict[str, Spoil] = {
    "as it was left": edit(lambda d: None),
    "without anything": edit(lambda d: d.update(staircase=[], probes=[], candidates=[], lost=[])),
    "without probes": edit(lambda d: d.update(probes=[], candidates=[], lost=[])),
    "without candidates": edit(lambda d: d.update(candidates=[], lost=[])),
    "with a staircase of one step": edit(lambda d: d.update(staircase=d["staircase"][:1], candidates=[])),
    "with a staircase that never ends": edit(lambda d: [step.update(count=10**9) for step in d["staircase"]]),
    "with no efficient step": edit(
        lambda d: ([step.update(efficient=False) for step in d["staircase"]], d.update(candidates=[]))
    ),
    "with probes of two stages": edit(
        lambda d: ([p.update(keep=[2, 1]) for p in d["probes"]], d.update(candidates=[]))
    ),
    "with probes of 10^9 tokens": edit(lambda d: [p.update(keep=[10**9]) for p in d["probes"]]),
    "with probes of 1e-320 ms": edit(
        lambda d: ([p.update(ms=1e-320) for p in d["probes"]], d.update(candidates=[], lost=[]))
    ),
    "with candidates of three stages": edit(
        lambda d: (d.update(probes=[]), [one.update(keep=[2, 1, 1]) for one in d["candidates"]])
    ),
    "with candidates that were not timed": edit(lambda d: [c.update(ms=None, speedup=None) for c in d["candidates"]]),
    "with candidates that were not judged": edit(lambda d: [c.update(agreement=None) for c in d["candidates"]]),
    "with one candidate": edit(lambda d: d.update(candidates=d["candidates"][:1])),
    "without a dense latency": at("dense_ms", None),
    "of other settings": edit(lambda d: d["settings"].update(samples=3)),
    "of other weights": at("weights_sha256", "0"),
    "of another network": edit(lambda d: d["config"].update(stage_starts=[0])),
    "of another machine": edit(lambda d: d["machine"].update(processor="abacus")),
    "cut in half": ANYTHING["cut in half"],
    "of 100,000 brackets": ANYTHING["100,000 brackets"],
    "of another schema": at("schema", "tofe-export/tune/99"),
}
"""What a stopped tuning left, made of a finished one."""


def cases() -> Iterator[Case]:
    """Results of `tune`, read by an export, and what lies where the next one is written."""
    small = {"ck.pth": "small.pth"}
    for what, spoil in {**ANYTHING, **TUNE}.items():
        yield basic(
            "documents", "onnx", f"a tuning: {what}", "--keep-from", "tune.json", kit=("small.pth", "tune.json"),
            instead=small, prepare=lambda work, spoil=spoil: spoil(work / "tune.json"),
            codes=FINE if what in _TUNE_FINE else REFUSED,
        )  # fmt: skip
    yield basic("documents", "onnx", "a tuning of a larger network", "--keep-from", "tune.json", kit=("tune.json",),
                codes=REFUSED)  # fmt: skip
    yield basic("documents", "onnx", "a tuning that is a bench", "--keep-from", "bench.json", kit=("bench.json",),
                codes=REFUSED)  # fmt: skip
    yield basic("documents", "onnx", "a tuning that was stopped", "--keep-from", "tune.json", instead=small,
                kit=("small.pth", "tune.json"), prepare=_stopped, codes=REFUSED)  # fmt: skip
    for what, spoil in RESUMED.items():
        yield basic(
            "documents", "tune", f"what was left, {what}", kit=("tune.json",), codes=FINE,
            removes=("tune.json.unfinished",),
            prepare=lambda work, spoil=spoil: (_stopped(work), spoil(work / "tune.json.unfinished")),
        )  # fmt: skip
    for what in ("cut in half", "a folder", "a link to itself", "100,000 brackets", "an empty object"):
        codes = REFUSED if what in ("a folder", "a link to itself") else FINE
        for name in ("tune.json", "tune.json.unfinished"):
            yield basic(
                "documents", "tune", f"{name}: {what}", kit=("tune.json", f"tune.json>{name}"), codes=codes,
                removes=("tune.json.unfinished",),
                prepare=lambda work, what=what, name=name: ANYTHING[what](work / name),
            )  # fmt: skip


def _stopped(work: Path) -> None:
    """As if Ctrl-C had met the last step."""
    (work / "tune.json").rename(work / "tune.json.unfinished")
    edit(lambda d: d.update(finished=False, reached=None, keep=[], session=None))(work / "tune.json.unfinished")
