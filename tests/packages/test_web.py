"""The page that runs a model in a browser: in a headless Chromium, beside `predict` and its token maps."""

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import tofe_export as tofe
from tests.browsers import chromium
from tests.helpers import SMALL_CLASSES, SMALL_KEEP, refusal, save_noise, save_small
from tests.readers.test_web import PACKAGE, WEBGPU, Quiet
from tofe_export.model.fixed_path import FixedPath
from tofe_export.packages.web import ON_GPU, RUNTIME
from tofe_export.page.token_maps import kept_in_stages, reused


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ckpt.pth, model.onnx, elided.onnx and photo.png."""
    folder = tmp_path_factory.mktemp("web")
    save_noise(folder / "photo.png", 90, 120)
    save_small(folder / "ckpt.pth")
    tofe.export(folder / "ckpt.pth", folder / "model.onnx", keep=SMALL_KEEP)
    tofe.export(folder / "ckpt.pth", folder / "elided.onnx", keep=SMALL_KEEP, rearrange="elide")
    return folder


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """Files with the names of onnxruntime-web's."""
    path = tmp_path / "dist"
    path.mkdir()
    for name in (*RUNTIME, *ON_GPU):
        (path / name).write_text(name)
    return path


def test_what_the_folder_holds(folder: Path, runtime: Path, tmp_path: Path) -> None:
    done = tofe.package(folder / "model.onnx", tmp_path / "site", target="web", runtime=runtime)
    assert {str(path.relative_to(done.path)) for path in done.files} == {
        *("index.html", "style.css", "app.mjs", "model.onnx", "model.json"),
        *(f"ort/{name}" for name in RUNTIME),
    }
    told = json.loads((done.path / "model.json").read_text())
    assert (told["keep"], told["grid"], told["classes"]) == ([8, 5, 3], [4, 4], list(SMALL_CLASSES))
    page = (done.path / "index.html").read_text() + (done.path / "app.mjs").read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert (told["runtime"], told["webgpu"]) == (RUNTIME[0], False)
    done = tofe.package(folder / "model.onnx", tmp_path / "gpu", target="web", runtime=runtime, webgpu=True)
    assert {path.name for path in done.files if path.parent.name == "ort"} == set(ON_GPU)
    told = json.loads((done.path / "model.json").read_text())
    assert (told["runtime"], told["webgpu"]) == (ON_GPU[0], True)


def test_samples_for_visitors(folder: Path, runtime: Path, tmp_path: Path) -> None:
    for number in range(11):
        save_noise(tmp_path / f"{number}.png", 30 + number, 40)
    (tmp_path / "broken.png").write_text("no image")
    done = tofe.package(folder / "model.onnx", tmp_path / "site", target="web", runtime=runtime, data=tmp_path)
    samples = sorted((done.path / "samples").iterdir())
    assert json.loads((done.path / "model.json").read_text())["samples"] == len(samples)
    assert done.images is not None
    assert len(samples) == done.images.read
    assert 7 <= done.images.read <= 8, "eight, of which one may be the broken one"
    for path in samples:
        with Image.open(path) as image:
            assert image.width == 40
            assert 30 <= image.height <= 40


def test_what_is_refused(folder: Path, runtime: Path, tmp_path: Path) -> None:
    model, site = folder / "model.onnx", tmp_path / "site"
    assert refusal(tofe.package, model, site, target="web").code == "no-web-runtime"
    assert refusal(tofe.package, model, site, target="web", runtime=tmp_path).code == "no-web-runtime"
    assert refusal(tofe.package, model, site, target="web", runtime=runtime, name="x").code == "for-another-target"
    assert refusal(tofe.package, model, site, runtime=runtime).code == "for-another-target"
    assert refusal(tofe.package, model, site, webgpu=True).code == "for-another-target"
    assert refusal(tofe.package, model, site, data="photos").code == "for-another-target"
    named = {"target": "web", "runtime": runtime, "data": "nowhere"}
    assert refusal(tofe.package, model, site, **named).code == "no-images-called"
    assert refusal(tofe.package, model, site, target="phone").code == "target-unknown"
    assert not site.exists()
    site.mkdir()
    (site / "mine.txt").write_text("mine")
    assert refusal(tofe.package, model, site, target="web", runtime=runtime).code == "folder-exists"
    assert [path.name for path in site.iterdir()] == ["mine.txt"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not PACKAGE.is_dir():
        pytest.skip("onnxruntime-web is not in build/web: make readers")
    with chromium(*WEBGPU) as started:
        yield started


def kept_tokens(folder: Path) -> Tensor:
    """By PyTorch: bool [1, S, N]."""
    network = tofe.load(folder / "ckpt.pth")
    with Image.open(folder / "photo.png") as image, torch.inference_mode():
        out = network.model.forward_fixed(network.preprocessing(image)[None], FixedPath(SMALL_KEEP))
    return kept_in_stages(network.model, out, SMALL_KEEP)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "webgpu"), [("model.onnx", False), ("elided.onnx", False), ("model.onnx", True)])
def test_a_visitor_drops_an_image(folder: Path, tmp_path: Path, browser: Any, name: str, webgpu: bool) -> None:
    (tmp_path / "samples").mkdir()
    save_noise(tmp_path / "samples" / "only.png", 61, 47)
    asked_for = {"target": "web", "runtime": PACKAGE, "data": tmp_path / "samples", "webgpu": webgpu}
    site = tofe.package(folder / name, tmp_path / "site", **asked_for).path
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            address = f"http://127.0.0.1:{server.server_address[1]}"
            page = browser.new_page()
            asked: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            page.goto(address)
            page.wait_for_selector("body[data-ready]", timeout=120_000)  # a processor draws what a GPU would
            has_gpu = page.evaluate("async () => Boolean(navigator.gpu && await navigator.gpu.requestAdapter())")
            where = "GPU" if webgpu and has_gpu else "processor"
            assert page.inner_text("#model").endswith(f"on the {where} of this device")
            page.set_input_files("#file", folder / "photo.png")
            page.wait_for_selector("#result:not([hidden])", timeout=120_000)
            rows = [row.inner_text().split("\t") for row in page.query_selector_all("#classes tr")]
            captions = [one.inner_text() for one in page.query_selector_all("figcaption")]
            page.screenshot(path=tmp_path / "page.png", full_page=True)
            page.click("#samples button")
            page.wait_for_selector("#status:has-text('Sample 1: 47 × 61 pixels')")
            (tmp_path / "bad.png").write_text("no image")
            page.set_input_files("#file", tmp_path / "bad.png")
            page.wait_for_selector("#status:has-text('is not an image that this browser reads')")
            assert {url.removeprefix(address)[:1] for url in asked if not url.startswith(("data:", "blob:"))} == {"/"}
        finally:
            server.shutdown()
            serving.join()
    [prediction] = tofe.predict(folder / "model.onnx", folder / "photo.png")
    assert [row[0] for row in rows] == [one.name for one in prediction.classes]
    assert [row[-1] for row in rows] == [f"{one.probability:.1%}" for one in prediction.classes]
    kept = kept_tokens(folder)
    counts, again = kept[0].sum(dim=1).tolist(), reused(kept)[0].sum(dim=1).tolist()
    assert captions == [
        f"Stage {stage + 1}: {count} of 16 tokens, {more} reused"
        for stage, (count, more) in enumerate(zip(counts, again, strict=True))
    ]
