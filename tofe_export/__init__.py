"""tofe-export: from a trained ToFe vision transformer to a verified, benchmarked deployment.

ToFe (token freezing and reusing, arXiv 2507.16260) lets only some patch tokens through the transformer
blocks of each stage. This package holds the model, its training, the ONNX export with fixed-size top-k,
and the checks that the deployed model says the same as the PyTorch one and is faster.
"""

__version__ = "0.1.0"
