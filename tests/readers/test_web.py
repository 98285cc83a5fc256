"""onnxruntime-web in a headless Chromium, with WebAssembly and with WebGPU drawn by the processor."""

import base64
import functools
import hashlib
import http.server
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.browsers import chromium
from tests.readers import operators
from tests.readers.comparing import require_same
from tests.readers.conftest import Written
from tofe_export.runners.base import Array

pytestmark = pytest.mark.slow
PACKAGE = Path(__file__).parents[2] / "build" / "web" / "node_modules" / "onnxruntime-web" / "dist"
WEBGPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")
PAGE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><script type="module">
import * as ort from "./ort/ort.all.min.mjs";
Object.assign(ort.env.wasm, {wasmPaths: new URL("./ort/", location.href).href, numThreads: 1});
ort.env.logLevel = "error";
const arrays = {float32: Float32Array, int32: Int32Array};
const unpack = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0)).buffer;
const pack = data => btoa(Array.from(new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
                                     byte => String.fromCharCode(byte)).join(""));
window.run = async (file, provider, feeds) => {
  const session = await ort.InferenceSession.create(file, {executionProviders: [provider]});
  const tensors = Object.entries(feeds).map(([name, {type, shape, bytes}]) =>
    [name, new ort.Tensor(type, new arrays[type](unpack(bytes)), shape)]);
  const outputs = await session.run(Object.fromEntries(tensors));
  return session.outputNames.map(name => [name, outputs[name].type, outputs[name].dims, pack(outputs[name].data)]);
};
window.gpu = async () => Boolean(navigator.gpu && await navigator.gpu.requestAdapter());
window.loaded = true;
</script>"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and logs nothing."""

    extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript"}

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


class Site:
    """A page on 127.0.0.1 that runs models, and every address that it loaded."""

    def __init__(self, folder: Path, address: str, browser: Any) -> None:
        self.folder, self.address = folder, address
        self.page = browser.new_page()
        self.loaded: list[str] = []
        self.page.on("request", lambda request: self.loaded.append(request.url))
        self.page.goto(f"{address}/index.html")
        self.page.wait_for_function("window.loaded")

    def run(self, model: bytes, provider: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
        name = f"{hashlib.sha256(model).hexdigest()}.onnx"  # not one name for all: the browser keeps what it loaded
        (self.folder / name).write_bytes(model)
        packed = {
            key: {"type": value.dtype.name, "shape": value.shape, "bytes": base64.b64encode(value.tobytes()).decode()}
            for key, value in feeds.items()
        }
        outputs = self.page.evaluate("([file, provider, feeds]) => run(file, provider, feeds)",
                                     [name, provider, packed])  # fmt: skip
        assert f"{self.address}/{name}" in self.loaded
        assert {url.removeprefix(self.address)[0] for url in self.loaded if not url.startswith("data:")} == {"/"}
        return {
            key: np.frombuffer(base64.b64decode(content), kind).reshape(shape) for key, kind, shape, content in outputs
        }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if not PACKAGE.is_dir():
        pytest.skip("onnxruntime-web is not in build/web: make readers")
    folder = tmp_path_factory.mktemp("site")
    (folder / "index.html").write_text(PAGE)
    shutil.copytree(PACKAGE, folder / "ort", ignore=shutil.ignore_patterns("*.map"))
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, chromium(*WEBGPU) as browser:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield Site(folder, f"http://127.0.0.1:{server.server_address[1]}", browser)
        finally:
            server.shutdown()
            serving.join()


@pytest.fixture(params=["wasm", "webgpu"])
def provider(request: pytest.FixtureRequest, site: Site) -> str:
    if request.param == "webgpu" and not site.page.evaluate("gpu()"):
        pytest.skip("this Chromium offers no WebGPU, not even drawn by the processor")
    return str(request.param)


def test_the_network(site: Site, provider: str, written: Written) -> None:
    for file in (written.inlined, written.portable):
        require_same(written.expected, site.run(file.read_bytes(), provider, {"images": written.images}))


def test_ties_and_values_that_are_not_finite(site: Site, provider: str) -> None:
    scores = operators.scores()
    if provider == "wasm":  # WGSL lets a GPU take these for zeros
        scores = np.concatenate([scores, operators.SUBNORMAL])
    feeds = {"tokens": operators.tokens_for(scores), "scores": scores}
    found = site.run(operators.partition(), provider, feeds)
    require_same(operators.expected_of(scores), found)
    assert np.array_equal(site.run(operators.rearrange(), provider, found)["tokens"], feeds["tokens"])
