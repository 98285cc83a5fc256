"""Runs every model of a folder on what it finds beside it; called by `arm64.py` in the emulated interpreter.

Arguments: the folder with the packages, the folder with the models.
"""

import platform
import sys
from pathlib import Path

sys.path.append(sys.argv[1])

import numpy as np
import onnxruntime as ort

options = ort.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = 1, 3
for file in sorted(Path(sys.argv[2]).glob("*.onnx")):
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    with np.load(file.with_suffix(".in.npz")) as feeds:
        outputs = session.run(None, dict(feeds))
    names = [value.name for value in session.get_outputs()]
    np.savez(file.with_suffix(".out.npz"), **dict(zip(names, outputs, strict=True)))
print(platform.machine())
