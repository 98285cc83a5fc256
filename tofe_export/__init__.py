"""tofe-export: from a trained ToFe vision transformer to a verified, benchmarked deployment.

ToFe (token freezing and reusing, arXiv 2507.16260) lets only some patch tokens through the transformer
blocks of each stage. This package holds the model, its training, the ONNX export with fixed-size top-k,
and the checks that the deployed model says the same as the PyTorch one and is faster.
"""

import os

# ONNX Runtime from 1.30 on queues what it was used for in the user's cache folder, and sends it; huggingface_hub, which
# timm downloads with, sends versions along. Both read this when they are first imported. Whoever wants it sets 0.
for _name in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_name, "1")

__version__ = "0.1.0"
