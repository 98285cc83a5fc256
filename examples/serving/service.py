"""An HTTP service around a file that takes pixels: an image in the body of a request, its classes in the answer.

    pip install fastapi uvicorn onnxruntime pillow
    MODEL=served.onnx THREADS=1 uvicorn service:app --workers 1
    curl --data-binary @cat.jpg http://127.0.0.1:8000/classes

One session answers everybody; `THREADS` are its own, and as many requests as uvicorn's thread pool allows share it.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from fastapi import FastAPI, HTTPException, Request
from numpy.typing import NDArray
from PIL import Image
from starlette.concurrency import run_in_threadpool

MODEL = Path(os.environ.get("MODEL", "served.onnx"))
MOST_BYTES = 20_000_000
MOST_PIXELS = 40_000_000
LONGEST = 200


class Classifier:
    """A file that takes pixels and returns classes, and their names."""

    def __init__(self, model: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(model, options)
        self._names = json.loads(Path(f"{model}.json").read_text(encoding="utf-8"))["classes"]

    def answer(self, body: bytes) -> list[dict[str, Any]]:
        """The most probable classes of an encoded image; HTTPException where it is none."""
        classes, probabilities = self._session.run(None, {"pixels": _decoded(body)[None]})
        return [
            {"index": int(index), "name": self._names[index] if self._names else "", "probability": float(probability)}
            for index, probability in zip(classes[0], probabilities[0], strict=True)
        ]


classifier = Classifier(MODEL, int(os.environ.get("THREADS", "1")))
app = FastAPI()


@app.get("/ready")
def ready() -> dict[str, str]:
    """Answers once the model is loaded."""
    return {"model": MODEL.name}


@app.post("/classes")
async def classes(request: Request) -> dict[str, Any]:
    """The body is a JPEG, PNG or WebP file."""
    body = await _body(request.stream())
    return {"classes": await run_in_threadpool(classifier.answer, body)}


async def _body(stream: AsyncIterator[bytes]) -> bytes:
    """Stops reading where a body is too large, whatever its header promised."""
    parts, size = [], 0
    async for part in stream:
        size += len(part)
        if size > MOST_BYTES:
            raise HTTPException(413, f"The body has more than {MOST_BYTES:,} bytes. Send a smaller image.")
        parts.append(part)
    return b"".join(parts)


def _decoded(body: bytes) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(body), formats=("JPEG", "PNG", "WEBP")) as image:
            if image.width * image.height > MOST_PIXELS:
                raise HTTPException(413, f"The image has more than {MOST_PIXELS:,} pixels. Send a smaller one.")
            if max(image.size) > LONGEST * min(image.size):  # preparing it would take memory for its longer side
                raise HTTPException(413, f"The image is more than {LONGEST} times as long as it is high or wide.")
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise HTTPException(415, "The body is not a JPEG, PNG or WebP image, or it is damaged.") from error
