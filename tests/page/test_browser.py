"""The page in a real headless Chromium: silent, alone, readable on a phone, in the dark and on paper."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browsers import chromium
from tofe_export.page.build import build_report

PHONE = {"width": 360, "height": 740}
DESK = {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def page_file(full_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_report(full_run, tmp_path_factory.mktemp("page") / "report.html", images=2)


class Opened:
    """The page in one kind of window, everything that it logged, and every address it loaded."""

    def __init__(self, browser: Any, file: Path, viewport: dict[str, int], scheme: str = "light") -> None:
        self.context = browser.new_context(viewport=viewport, color_scheme=scheme)
        self.page = self.context.new_page()
        self.logged: list[str] = []
        self.loaded: list[str] = []
        self.page.on("console", lambda message: self.logged.append(message.text))
        self.page.on("pageerror", lambda error: self.logged.append(str(error)))
        self.page.on("request", lambda request: self.loaded.append(request.url))
        self.page.goto(file.as_uri(), wait_until="load")

    def __enter__(self) -> "Opened":
        return self

    def __exit__(self, *error: object) -> None:
        self.context.close()

    def value(self, script: str) -> Any:
        return self.page.evaluate(script)


def test_the_page_logs_nothing_and_loads_nothing(browser: Any, page_file: Path) -> None:
    with Opened(browser, page_file, DESK) as opened:
        assert opened.logged == []
        outside = [url for url in opened.loaded if not url.startswith("data:")]
        assert outside == [page_file.as_uri()]
        assert opened.value("document.scripts.length") == 0
        assert opened.value("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


def test_the_listener_would_hear(browser: Any, page_file: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.html"
    text = page_file.read_text()
    damaged.write_text(text.replace("</body>", "<script>console.error('no')</script><img src='gone.png'></body>"))
    with Opened(browser, damaged, DESK) as opened:
        assert "no" in opened.logged
        assert any(url.endswith("gone.png") for url in opened.loaded)


@pytest.mark.parametrize("viewport", [PHONE, {"width": 768, "height": 1024}, DESK], ids=["phone", "tablet", "desk"])
def test_nothing_sticks_out(browser: Any, page_file: Path, viewport: dict[str, int]) -> None:
    with Opened(browser, page_file, viewport) as opened:
        assert opened.value("document.documentElement.scrollWidth") <= viewport["width"]


def test_every_picture_has_words(browser: Any, page_file: Path) -> None:
    with Opened(browser, page_file, DESK) as opened:
        assert opened.value("[...document.images].every(image => image.alt.length > 10)")
        charts = opened.value("[...document.querySelectorAll('figure.chart')].map(c => c.getAttribute('aria-label'))")
        assert len(charts) >= 8
        assert all(label and len(label) > 30 for label in charts)
        assert opened.value("[...document.querySelectorAll('table')].every(t => t.querySelector('th[scope]'))")
        assert opened.value("document.querySelectorAll('[id]').length") == opened.value(
            "new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size"
        )


def test_light_and_dark_both_contrast(browser: Any, page_file: Path) -> None:
    luminance = """name => {
      const parts = getComputedStyle(document.body)[name].match(/[0-9.]+/g).slice(0, 3).map(Number);
      const linear = parts.map(c => c / 255 <= .04045 ? c / 255 / 12.92 : ((c / 255 + .055) / 1.055) ** 2.4);
      return .2126 * linear[0] + .7152 * linear[1] + .0722 * linear[2];
    }"""
    seen = {}
    for scheme in ("light", "dark"):
        with Opened(browser, page_file, DESK, scheme) as opened:
            paper, ink = (opened.page.evaluate(luminance, name) for name in ("backgroundColor", "color"))
            seen[scheme] = paper
            assert (max(paper, ink) + 0.05) / (min(paper, ink) + 0.05) > 7, "WCAG 2.2, enhanced contrast"
    assert seen["light"] > 0.8
    assert seen["dark"] < 0.1


def test_it_prints(browser: Any, page_file: Path, tmp_path: Path) -> None:
    with Opened(browser, page_file, DESK) as opened:
        printed = opened.page.pdf(path=str(tmp_path / "report.pdf"), format="A4")
    assert printed.startswith(b"%PDF")
    assert len(printed) > 50_000


def test_what_the_folder_holds_is_on_the_page(browser: Any, page_file: Path) -> None:
    with Opened(browser, page_file, DESK) as opened:
        text = opened.page.inner_text("body")
        rows = opened.value("[...document.querySelectorAll('#parity table')][0].innerText")
    assert "Not fit to deploy: elide.onnx, broken.onnx" in text
    assert "Stage 2 of the graph keeps 3 tokens; its manifest says 2." in text
    assert "It travels beside broken.onnx" in text or "broken.onnx" in rows
    for heading in (
        "How fast it is",
        "What fixed keep counts cost",
        "How it was trained",
    ):
        assert heading in text
    assert "not checked" not in rows
