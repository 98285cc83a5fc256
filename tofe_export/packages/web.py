"""A static page that runs the model in the visitor's browser, by onnxruntime-web, and draws its tokens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from tofe_export.artifacts.artifact import Artifact, require_logits
from tofe_export.artifacts.ends import Ends
from tofe_export.data.image_log import ImageLog
from tofe_export.data.images import ImageSource, batches, pixels_of
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.documents.manifest import OnnxManifest
from tofe_export.errors import InputError, MissingError
from tofe_export.graph.export import INPUT
from tofe_export.graph.passes.taps import hide_taps, show_taps
from tofe_export.graph.stored import copy_model, serialize
from tofe_export.model.selection import Layout
from tofe_export.page.token_maps import patch_grid

PAGE = Path(__file__).with_name("web_page")
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
ON_GPU = ("ort.min.mjs", "ort-wasm-simd-threaded.jsep.mjs", "ort-wasm-simd-threaded.jsep.wasm")
"""What the page loads of onnxruntime-web, from the folder `dist` of its npm package; and where it may use WebGPU.

Its newer build for WebGPU (asyncify, 1.30) has no float64, which preparing images needs.
"""
_GET_IT = "Get it: npm install onnxruntime-web; then name its folder: node_modules/onnxruntime-web/dist"
_TOP = 5
_SAMPLES, _LONGEST = 8, 1024  # images, and pixels of a side: every visitor loads them


def runtime_in(folder: Path | None, webgpu: bool) -> list[Path]:
    """The files of onnxruntime-web, of which the page imports the first; MissingError where one is missing."""
    if folder is None:
        raise MissingError(
            "The page needs onnxruntime-web, which is not a Python package.", _GET_IT, code="no-web-runtime"
        )
    files = [folder / name for name in (ON_GPU if webgpu else RUNTIME)]
    for file in files:
        if not file.is_file():
            raise MissingError(f"{folder} has no {file.name}.", _GET_IT, code="no-web-runtime", path=folder)
    return files


def require_for_web(artifact: Artifact) -> OnnxManifest:
    """Raises InputError for what cannot run in a browser."""
    manifest = artifact.manifest
    if not isinstance(manifest, OnnxManifest) or manifest.runtime == "openvino":
        raise InputError(
            f"{artifact.path} does not run in a browser.",
            "Take an ONNX file that was exported or quantized.",
            code="not-for-web",
            path=artifact.path,
        )
    require_logits(manifest)
    return manifest


def samples_of(source: ImageSource, log: ImageLog) -> list[Image.Image]:
    """Images that a visitor may take in place of one of his own, spread over the source, and made smaller."""
    samples = []
    for batch in batches(source, pixels_of, 1, limit=_SAMPLES, log=log):
        image = Image.fromarray(batch.images[0].numpy())
        image.thumbnail((_LONGEST, _LONGEST))
        samples.append(image)
    return samples


def write_site(
    folder: Path, artifact: Artifact, runtime: Sequence[Path], webgpu: bool, samples: Sequence[Image.Image] = ()
) -> None:
    """Fills a folder that any file server serves; nothing is loaded from elsewhere."""
    manifest = require_for_web(artifact)
    for path in sorted(PAGE.iterdir()):
        shutil.copyfile(path, folder / path.name)
    (folder / "ort").mkdir()
    for file in runtime:
        shutil.copyfile(file, folder / "ort" / file.name)
    for number, image in enumerate(samples, 1):
        (folder / "samples").mkdir(exist_ok=True)
        image.save(folder / "samples" / f"{number}.png")
    (folder / "model.onnx").write_bytes(_model(artifact, manifest))
    settings = {
        **_settings(manifest),
        "runtime": runtime[0].name,
        "webgpu": webgpu,
        "samples": len(samples),
    }
    (folder / "model.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def _model(artifact: Artifact, manifest: OnnxManifest) -> bytes:
    """Pixels to classes, with what the page draws: the prepared images, and which tokens each stage chose."""
    model = copy_model(artifact.graph)
    show_taps(model)
    perms = [value for value in model.graph.outputs if (value.name or "").endswith(".perm")]
    hide_taps(model)
    Ends("image", _TOP).attached(model, Preprocessing.of(manifest.preprocessing))
    prepared = next(value for node in model.graph for value in node.outputs if value.name == INPUT)
    model.graph.outputs.extend([prepared, *perms])
    content = serialize(model)
    assert isinstance(content, bytes)  # `Ends` refuses what is larger
    return content


def _settings(manifest: OnnxManifest) -> dict[str, object]:
    layout = Layout.of(manifest.config.approximator, manifest.tokens, manifest.rearrange == "plugin")
    share = manifest.gmacs / manifest.dense_gmacs
    return {
        "description": f"{manifest.config.backbone} in {manifest.precision}, at {share:.0%} of the cost of all tokens",
        "classes": manifest.classes,
        "keep": manifest.keep,
        "tokens": manifest.tokens,
        "grid": patch_grid(manifest),
        "height": manifest.preprocessing.height,
        "width": manifest.preprocessing.width,
        "mean": manifest.preprocessing.mean,
        "std": manifest.preprocessing.std,
        "rearranged": layout.rearranged,
        "discarded": layout.discarded,
        "fused": layout.fused,
    }
