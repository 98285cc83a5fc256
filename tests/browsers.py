"""The Chromium of this machine."""

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextlib.contextmanager
def chromium(*arguments: str) -> Iterator[Any]:
    """The system's Chromium, or playwright's own, headless; skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    installed = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    with playwright.sync_playwright() as driver:
        try:
            started = driver.chromium.launch(executable_path=installed, args=["--no-sandbox", *arguments])
        except playwright.Error:
            if installed is not None:
                raise
            pytest.skip("no Chromium here: apt-get install chromium, or playwright install chromium")
        yield started
        started.close()
