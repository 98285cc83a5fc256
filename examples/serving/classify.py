"""Classes of images without PyTorch: ONNX Runtime, NumPy and Pillow are all it needs.

tofe-export onnx ckpt.pth --input image --outputs classes -o served.onnx
python classify.py served.onnx cat.jpg dog.jpg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image


def main(model: str, *images: str) -> None:
    """Prints the most probable classes of each image."""
    session = onnxruntime.InferenceSession(model)
    names = json.loads(Path(f"{model}.json").read_text(encoding="utf-8"))["classes"]
    for image in images:
        with Image.open(image) as opened:
            pixels = np.asarray(opened.convert("RGB"))
        classes, probabilities = session.run(None, {"pixels": pixels[None]})
        for place, probability in zip(classes[0], probabilities[0], strict=True):
            print(f"{image}  {names[place] if names else place}  {probability:.1%}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python classify.py MODEL.onnx IMAGE...")
    main(*sys.argv[1:])
