"""Whatever files are called and whatever documents say: a page that shows it as it is, or a sentence."""

import contextlib
import copy
import html
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers import small_tofe
from tofe_export.documents.base import read_document
from tofe_export.documents.benchmark import Benchmark
from tofe_export.documents.verification import read_verifications
from tofe_export.errors import InputError
from tofe_export.page import speed
from tofe_export.page.build import build_report
from tofe_export.page.folder import read_folder
from tofe_export.page.headline import headline
from tofe_export.page.labels import distinct, short, shown
from tofe_export.page.speed import latency_chart, speed_chart
from tofe_export.runners.base import in_host_memory
from tofe_export.runners.onnxruntime_runner import OnnxRuntimeRunner
from tofe_export.runners.torch_runner import TorchRunner

NASTY = [
    "price_$x^2$.onnx",
    "$\\frac{1}{.onnx",
    "_hidden.onnx",
    "__init__.onnx",
    "100%s{0}\\n.onnx",
    "<script>alert(1)</script>&amp;.onnx",
    "line\nbreak\ttab\x00nul\x1b[31m.onnx",
    "byte-\udcff-\udc80.onnx",
    "half-\ud83d.onnx",
    "模型-モデル.onnx",
    "🦊👩‍👩‍👧.onnx",
    "مرحبا.onnx",
    "שלום.onnx",
    "हिन्दी.onnx",
    "turn\u202exnno.onnx",
    "v" * 90 + "-fp32-" + "w" * 90 + ".onnx",
    "v" * 90 + "-int8-" + "w" * 90 + ".onnx",
]
LOGS = ("metrics.jsonl", "steps.jsonl")
DOCUMENTS = ("verify.json", "bench.json", *LOGS, "model.onnx.json")
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2.5, 10**20, 10**400, -(10**400), 1e308, 1e-308, float("nan"), float("inf")),
    *("", "x", "$", "nan", [], [[]], [None], [-1], {}, {"": None}, {"a": []}, [{}]),
]


def read_benchmark(folder: Path, document: dict[str, Any]) -> Benchmark:
    (folder / "bench.json").write_text(json.dumps(document))
    return read_document(Benchmark, folder / "bench.json", "")


def test_no_name_is_lost_in_a_chart(full_run: Path, tmp_path: Path) -> None:
    timed = json.loads((full_run / "bench.json").read_text())
    dense, deployed = (row for row in timed["rows"] if row["batch"] == 1)
    benchmark = read_benchmark(tmp_path, {**timed, "rows": [dense, *({**deployed, "name": name} for name in NASTY)]})
    wanted = distinct(NASTY, 38)
    assert len(set(wanted)) == len(NASTY)
    for chart in (speed_chart(benchmark), latency_chart(benchmark)):
        assert chart is not None
        texts = {
            element.text for element in ElementTree.fromstring(chart.svg()).iter("{http://www.w3.org/2000/svg}text")
        }
        assert not set(wanted) - {(text or "").strip() for text in texts} - {""}
    assert chart is not None
    for written in chart.write(tmp_path):
        assert written.stat().st_size > 1000
    ElementTree.parse(tmp_path / "latency.svg")


def test_the_page_shows_every_name_as_it_is(full_run: Path, tmp_path: Path) -> None:
    verified = json.loads((full_run / "verify.json").read_text())
    whole = verified["artifacts"][0]
    verified["artifacts"] = [{**whole, "model": name, "data": name, "failures": [name]} for name in NASTY]
    (tmp_path / "verify.json").write_text(json.dumps(verified))
    folder = tmp_path / os.fsdecode(b"run \xff$_$ <b>")
    folder.mkdir()
    shutil.copy(tmp_path / "verify.json", folder)
    text = build_report(folder, tmp_path / "page.html", images=0).read_text(encoding="utf-8")
    page = html.unescape(text)
    for name in NASTY:
        assert f"<bdi>{html.escape(shown(name), quote=True)}</bdi>".replace("&#x27;", "&#39;") in text
        assert shown(name) in page
    assert "<script>" not in text
    assert "run \\xff$_$ &lt;b&gt;" in text
    assert not re.search("[\x00-\x08\x0e-\x1f\u202e]", text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb\x00\x1b\x7f", "a\\nb\\x00\\x1b\\x7f"),
        ("\udcff\udc80é", "\\xff\\x80é"),
        ("\ud83d", "\\ud83d"),
        ("a\u202eb\u2066c\u200fd", "a\\u202eb\\u2066c\\u200fd"),
        ("50\u202f% 1.2\u2060–\u20601.4 👩‍👧 _$x$", "50\u202f% 1.2\u2060–\u20601.4 👩‍👧 _$x$"),
    ],
)
def test_what_cannot_be_seen_is_spelled_out(text: str, expected: str) -> None:
    assert shown(text) == expected


def test_short_names_stay_apart() -> None:
    long = ["m" * 50 + end + "n" * 50 for end in ("1", "2", "31", "32")]
    cut = distinct([*long, "a", "a", ""])
    assert len(set(cut)) == 7
    assert all(len(text) <= 28 for text in cut)
    assert short("a" * 30) == "a" * 12 + "…" + "a" * 11
    assert distinct(["one", "two"]) == ["one", "two"]


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document, the whole of it first."""
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from _places(part, (*path, key))


def _put(document: Any, place: tuple[Any, ...], value: Any) -> Any:
    """The document with another value in one place; `...` takes the place out."""
    if not place:
        return None if value is ... else value
    changed = copy.deepcopy(document)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return changed


@pytest.fixture(scope="module")
def documents(full_run: Path) -> dict[str, Any]:
    """The real documents of a run; a log as the list of its lines."""
    names = "bench.json", "model.onnx.json", "verify.json"
    return {
        **{name: json.loads((full_run / name).read_text()) for name in names},
        **{name: [json.loads(line) for line in (full_run / name).read_text().splitlines()] for name in LOGS},
    }


def _write(folder: Path, name: str, document: Any) -> None:
    lines = document if name in LOGS and isinstance(document, list) else [document]
    (folder / name).write_text("\n".join(json.dumps(line) for line in lines))


def _page_or_sentence(folder: Path) -> None:
    with contextlib.suppress(InputError):
        text = build_report(folder, images=0).read_text(encoding="utf-8")
        for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
            ElementTree.fromstring(svg)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.data())
def test_a_damaged_document_is_a_page_or_a_sentence(documents: dict[str, Any], drawn: st.DataObject) -> None:
    _damage(documents, drawn)


@pytest.mark.slow
@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.data())
def test_many_damaged_documents_are_pages_or_sentences(documents: dict[str, Any], drawn: st.DataObject) -> None:
    _damage(documents, drawn)


def _damage(documents: dict[str, Any], drawn: st.DataObject) -> None:
    name = drawn.draw(st.sampled_from(DOCUMENTS))
    document = documents[name]
    for _ in range(drawn.draw(st.integers(1, 3))):
        place = drawn.draw(st.sampled_from(list(_places(document))))
        document = _put(document, place, drawn.draw(st.sampled_from([..., *VALUES])))
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), name, document)
        _page_or_sentence(Path(folder))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"9" * 5000,
        b"[" * 100_000,
        b'{"schema": ["tofe-export/bench/1"]}',
    ],
    ids=["empty", "cut", "null", "list", "object", "not UTF-8", "5,000 digits", "deep", "schema"],
)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_document_at_all(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    _page_or_sentence(tmp_path)


def test_a_manifest_alone_and_a_benchmark_without_rows(full_run: Path, tmp_path: Path) -> None:
    shutil.copy(full_run / "model.onnx.json", tmp_path)
    text = build_report(tmp_path, images=2).read_text()
    assert "There is no ckpt.pth here to look into." in text
    assert "tofe-export verify" not in text, "there is nothing to verify it against"
    (tmp_path / "bench.json").write_text('{"schema": "tofe-export/bench/1", "rows": []}')
    assert headline((), read_folder(tmp_path).benchmark) == (
        "Not yet compared with PyTorch. Not yet timed.",
        "open",
    )
    assert build_report(tmp_path, images=2).exists()


def test_every_model_is_inside_its_chart(full_run: Path, tmp_path: Path) -> None:
    timed = json.loads((full_run / "bench.json").read_text())
    dense, deployed = (row for row in timed["rows"] if row["batch"] == 1)
    timed["rows"] = [dense, *({**deployed, "name": f"{number}.onnx"} for number in range(20))]
    chart = speed_chart(read_benchmark(tmp_path, timed))
    assert chart is not None
    (axes,) = chart.figure().axes
    low, high = sorted(axes.get_ylim())
    heights = {height for line in axes.lines if len(line.get_xdata()) == 1 for height in line.get_ydata()}
    assert len(heights) == 20
    assert low < min(heights)
    assert max(heights) < high


def test_times_are_said_of_each_backend(full_run: Path, tmp_path: Path) -> None:
    timed = json.loads((full_run / "bench.json").read_text())
    rows = {row["name"]: row for row in timed["rows"] if row["batch"] == 1}
    dense, deployed = rows.values()
    assert dense["calls"] >= 3
    cuda = [{**row, "backend": "onnxruntime-cuda"} for row in (dense, deployed)]
    engine = [{**row, "backend": "tensorrt", "precision": "int8"} for row in (dense, deployed)]
    for chosen, host, copies, graph, threads in (
        ([dense, deployed], True, False, False, True),
        (cuda, False, True, False, False),
        (engine, False, True, True, False),
        ([dense, deployed, *engine], True, True, True, True),
    ):
        benchmark = read_benchmark(tmp_path, timed | {"rows": chosen})
        times = " ".join(speed.times(benchmark))
        assert ("host memory to the outputs in host memory" in times) == host
        assert ("copies are not included" in times) == copies
        assert ("CUDA graph" in times) == graph
        assert ("1 thread" in speed.machine(benchmark)) == threads
        assert "what the precision gains" not in speed.speedup(benchmark)
    mixed = read_benchmark(tmp_path, timed | {"rows": [dense, {**deployed, "precision": "int8"}]})
    assert "A model in int8 was timed beside a dense backbone in fp32" in speed.speedup(mixed)
    assert "the dense backbone in fp32" in headline((), mixed)[0]


def test_what_runners_time_is_where_the_page_says(full_run: Path) -> None:
    images = np.zeros((1, 3, 32, 32), dtype=np.float32)
    network = small_tofe()
    for runner in (OnnxRuntimeRunner(full_run / "model.onnx", 1), TorchRunner(network.vit)):
        assert in_host_memory(runner.backend)
        outputs = runner.bind(images)()
        assert isinstance(outputs, dict)
        assert all(isinstance(value, np.ndarray) for value in outputs.values())
    assert not any(map(in_host_memory, ("onnxruntime-cuda", "tensorrt", "tensorrt_rtx")))


@pytest.mark.parametrize(
    ("change", "words", "tone"),
    [
        ({"samples": 0}, "on no image at all", "open"),
        ({"overridden": {"logits_max_abs": 1.0}}, "Some limits were set by hand.", "good"),
        ({"logits": None, "top1_agreement": None}, "Within the limits of PyTorch", "good"),
        ({"samples": 1}, "Same class as PyTorch for 1 image.", "good"),
    ],
)
def test_the_headline_says_what_holds(
    full_run: Path, tmp_path: Path, change: dict[str, Any], words: str, tone: str
) -> None:
    document = json.loads((full_run / "verify.json").read_text())["artifacts"][0]
    (tmp_path / "verify.json").write_text(json.dumps(document | {"top1_agreement": 1.0} | change))
    verified = read_verifications(tmp_path / "verify.json", "").artifacts
    line, _ = headline(verified, None)
    assert words in line
    timed = json.loads((full_run / "bench.json").read_text())
    for row in timed["rows"]:
        if row["speedup"] != 1:
            row |= {"speedup": 2.0, "speedup_low": 1.9, "speedup_high": 2.1}
    assert headline(verified, read_benchmark(tmp_path, timed))[1] == tone
    timed["rows"][-1] |= {"speedup": 0.5, "speedup_low": 0.4, "speedup_high": 0.6}
    assert "Slower at batch 2." in headline(verified, read_benchmark(tmp_path, timed))[0]
