"""All that a GPU machine can tell: kernels; ToFe beside the dense backbone in PyTorch, ONNX Runtime, RTX and TensorRT.

    python benchmarks/gpu.py [--json benchmarks/results/gpu.json] [--batch 1,8,64,256] [--rounds 20] [--backbone NAME]
                             [--without "torch compiled,tensorrt"]

DeiT-S with random weights at keep counts 96,49,27. What cannot run here is in the JSON with its reason.
`--without` leaves out what begins so, as "torch compiled fp32": the compiler alone takes minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import kernel_launch
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import torch
from gpu_kernels import measure_kernels
from torch import Tensor

from tofe_export.documents.machine import describe_machine, describe_versions
from tofe_export.engine.backend import open_backend
from tofe_export.engine.build import build_engine
from tofe_export.engine.options import BatchProfile, BuildOptions
from tofe_export.engine.runtime import EngineSession
from tofe_export.files.writing import write_json
from tofe_export.graph.export import export_dense, export_tofe
from tofe_export.model import backbones, stage
from tofe_export.model.config import ToFeConfig
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.model.tofe import ToFe, build_tofe
from tofe_export.precision.half import to_half
from tofe_export.timing.blocks import measure
from tofe_export.timing.intervals import ratio_within

Run = Callable[[], object]
Pair = Callable[[int], tuple[Run, Run]]
"""From a batch size to (dense, ToFe)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "gpu.json")
    parser.add_argument("--batch", default="1,8,64,256")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--backbone", default="deit_small_patch16_224")
    parser.add_argument("--keep", default="96,49,27")
    parser.add_argument("--without", default="")
    options = parser.parse_args()
    left_out = tuple(filter(None, options.without.split(",")))
    batches, keep = ([int(part) for part in text.split(",")] for text in (options.batch, options.keep))
    torch.manual_seed(0)
    model = build_tofe(ToFeConfig(options.backbone)).eval()
    promised = dense_macs(model.vit) / tofe_macs(model, [float(count) for count in keep])
    command = f"python benchmarks/gpu.py --batch {options.batch} --rounds {options.rounds}"
    found: dict[str, Any] = {
        "schema": "tofe-export/benchmark/1",
        "command": command + (f" --without '{options.without}'" if options.without else ""),
        "machine": describe_machine().to_dict(),
        "versions": describe_versions(),
        "settings": {"backbone": options.backbone, "keep": keep, "weights": "random", "promised_speedup": promised},
        "rows": [],
        "kernels": [],
        "not_run": [],
    }
    for name, precision, make in subjects(model, keep, max(batches)):
        if f"{name} {precision}".startswith(left_out):
            continue
        with _reason_taken(found["not_run"], name, precision):
            pair = make()
            for batch in batches:
                found["rows"].append(_row(name, precision, batch, pair(batch), options.rounds, promised))
                write_json(options.json, found)  # a run that is cut short keeps its rows
    with _reason_taken(found["not_run"], "kernels", ""):
        found["kernels"] = measure_kernels()
    write_json(options.json, found)
    print(json.dumps({key: found[key] for key in ("rows", "kernels", "not_run")}, indent=1))


@contextlib.contextmanager
def _reason_taken(reasons: list[dict[str, str]], name: str, precision: str) -> Iterator[None]:
    """Whatever a backend raises where it cannot run: the reason is the result."""
    try:
        yield
    except Exception as error:
        reasons.append({"name": name, "precision": precision, "why": f"{type(error).__name__}: {error}"[:500]})


def subjects(model: ToFe, keep: list[int], largest: int) -> list[tuple[str, str, Callable[[], Pair]]]:
    """(name, precision, what makes the pair); nothing runs before it is asked to."""
    found: list[tuple[str, str, Callable[[], Pair]]] = []
    for precision in ("fp32", "fp16"):
        found += [
            (f"torch {mode}", precision, functools.partial(_torch, model, keep, mode, precision))
            for mode in ("eager", "CUDA graph", "CUDA graph, kernels", "compiled")
        ]
        found += [
            (name, precision, functools.partial(_onnxruntime, model, keep, precision, captured))
            for name, captured in (("ONNX Runtime CUDA", False), ("ONNX Runtime CUDA graph", True))
        ]
        for backend, plugin in (("rtx", "off"), ("tensorrt", "on"), ("tensorrt", "off")):
            build = functools.partial(_engine, model, keep, backend, plugin, precision, largest)
            found.append((f"{backend}, plugins {plugin}", precision, build))
    return found


def _row(name: str, precision: str, batch: int, pair: tuple[Run, Run], rounds: int, promised: float) -> dict[str, Any]:
    dense, tofe = measure(pair, rounds)
    ratio = ratio_within(dense, tofe)
    return {
        "name": name,
        "precision": precision,
        "batch": batch,
        "dense_p50_ms": dense.percentile_ms(50),
        "tofe_p50_ms": tofe.percentile_ms(50),
        "tofe_images_per_s": batch / tofe.percentile_ms(50) * 1e3,
        "speedup": ratio,
        "realised_fraction": ratio / promised,
    }


def _require_gpu() -> None:
    if not torch.cuda.is_available():
        raise RuntimeError("there is no NVIDIA GPU that PyTorch can use")


def _torch(model: ToFe, keep: list[int], mode: str, precision: str) -> Pair:
    _require_gpu()
    mine = copy.deepcopy(model).cuda()
    mine = mine.half() if precision == "fp16" else mine
    fixed = FixedPath(keep, rearranged=False)
    functions = [mine.vit, lambda images: mine.forward_fixed(images, fixed).logits]
    if mode == "compiled":
        functions = [torch.compile(function, mode="reduce-overhead", dynamic=False) for function in functions]

    def pair(batch: int) -> tuple[Run, Run]:
        images = backbones.zero_images(model.vit, batch).normal_().cuda()
        images = images.half() if precision == "fp16" else images
        with contextlib.ExitStack() as stack:
            if mode == "CUDA graph, kernels":  # those of the plugins, in place of PyTorch's sort and gather
                stack.enter_context(mock.patch.object(stage, "token_partition", kernel_launch.token_partition))
            dense, tofe = (_ready(function, images, mode.startswith("CUDA graph")) for function in functions)
        return dense, tofe

    return pair


def _ready(function: Callable[[Tensor], Tensor], images: Tensor, captured: bool) -> Run:
    def run() -> None:
        with torch.inference_mode():
            function(images)
        torch.cuda.synchronize()

    for _ in range(5):
        run()
    if not captured:
        return run
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        function(images)

    def replay() -> None:
        graph.replay()
        torch.cuda.synchronize()

    return replay


def _graphs(model: ToFe, keep: list[int], precision: str) -> list[ir.Model]:
    graphs = [export_dense(model), export_tofe(model, keep, rearrange=False, taps=False)]
    if precision == "fp16":
        for graph in graphs:
            to_half(graph, "fp16")
    return graphs


@functools.cache
def _protos(model: ToFe, keep: tuple[int, ...], precision: str) -> list[onnx.ModelProto]:
    return [ir.to_proto(graph) for graph in _graphs(model, list(keep), precision)]


def _onnxruntime(model: ToFe, keep: list[int], precision: str, captured: bool) -> Pair:
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise RuntimeError("the installed ONNX Runtime has no CUDA provider (onnxruntime-gpu has)")
    _require_gpu()
    graphs = _protos(model, tuple(keep), precision)

    def bound(graph: onnx.ModelProto, batch: int) -> Run:
        if captured:  # a CUDA graph has fixed shapes
            graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
        choices = {"enable_cuda_graph": str(int(captured)), "use_tf32": "0"}  # as `tofe-export bench` takes it
        providers = [("CUDAExecutionProvider", choices), "CPUExecutionProvider"]
        session = ort.InferenceSession(graph.SerializeToString(), providers=providers)
        images = backbones.zero_images(model.vit, batch).normal_().numpy()
        binding = session.io_binding()
        binding.bind_ortvalue_input("images", ort.OrtValue.ortvalue_from_numpy(images, "cuda", 0))
        logits = np.zeros((batch, model.vit.num_classes), np.float32)
        binding.bind_ortvalue_output("logits", ort.OrtValue.ortvalue_from_numpy(logits, "cuda", 0))

        def run() -> None:
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return run

    return lambda batch: (bound(graphs[0], batch), bound(graphs[1], batch))


def _engine(model: ToFe, keep: list[int], name: str, plugin: str, precision: str, largest: int) -> Pair:
    backend = open_backend(name)
    options = BuildOptions(precision, name, plugin, BatchProfile(1, min(8, largest), largest))
    graphs = [export_dense(model), export_tofe(model, keep, rearrange=plugin == "on", taps=False)]
    sessions = []
    for graph in graphs:
        built = build_engine(graph, backend, options, "fp32", lambda task, done, total: None)
        sessions.append(EngineSession(built.content, backend, precision))

    def pair(batch: int) -> tuple[Run, Run]:
        images = np.random.default_rng(0).standard_normal((batch, *backbones.image_shape(model.vit)), dtype=np.float32)
        return sessions[0].bind(images), sessions[1].bind(images)

    return pair


if __name__ == "__main__":
    main()
