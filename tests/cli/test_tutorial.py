"""The server in docs/tutorial.md answers with the best classes of the exported model."""

import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import onnxruntime as ort
import torch

from tofe_export.data.digits import Digits
from tofe_export.data.preprocessing import Preprocessing

PAGE = (Path(__file__).parents[2] / "docs/tutorial.md").read_text()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def ask(port: int, image: bytes) -> object:
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}", data=image, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.URLError:
            time.sleep(0.1)
    raise AssertionError("the server did not answer")


def test_it_serves(exported: Path, tmp_path: Path) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "serve.py").write_text(script)
    manifest = json.loads((tmp_path / "model.onnx.json").read_text())
    manifest["preprocessing"]["crop_pct"] = 1.0
    manifest["classes"] = ["zero", "one", "two", "three", "four"]
    (tmp_path / "model.onnx.json").write_text(json.dumps(manifest))
    preprocessing = Preprocessing.from_dict(manifest["preprocessing"])
    images = [Digits("val")[i].image.resize((preprocessing.width, preprocessing.height)) for i in range(3)]
    port = free_port()
    answers = []
    with subprocess.Popen([sys.executable, "serve.py", exported.name, str(port)], cwd=tmp_path) as server:
        try:
            for image in images:
                image.save(tmp_path / "digit.png")
                answers.append(ask(port, (tmp_path / "digit.png").read_bytes()))
        finally:
            server.terminate()
    batch = torch.stack([preprocessing(image) for image in images]).numpy()
    (logits,) = ort.InferenceSession(exported).run(["logits"], {"images": batch})
    assert answers == [{"best": [manifest["classes"][i] for i in row.argsort()[::-1][:3]]} for row in logits]
