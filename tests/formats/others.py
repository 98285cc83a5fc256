"""Networks in other code's names, and files that are no checkpoints at all."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import timm
import torch
import torchvision
from PIL import Image
from torch import nn

from tests.checkpoints.test_layouts import clip_tower, jax_archive
from tests.formats.case import Case, Make
from tests.formats.networks import SMALL, hints, network, randomized
from tofe_export.checkpoints.foreign import Hints

TINY = "vit_tiny_patch16_224"


def layouts() -> Iterator[Case]:
    """torchvision, CLIP, JAX and the authors of DINOv2 and DINOv3."""
    theirs = randomized(torchvision.models.VisionTransformer(32, 8, 2, 3, 192, 768, num_classes=7))
    for prefix in ("", "module.", "model.", "_orig_mod."):
        state = {prefix + key: value for key, value in theirs.state_dict().items()}
        yield Case("other names", f"torchvision, prefix {prefix or 'none'}", _pickle(state), theirs)
    clip = randomized(timm.create_model("vit_base_patch32_clip_quickgelu_224", img_size=64, num_classes=16))
    with torch.no_grad():
        clip.head.bias.zero_()
    tower = clip_tower(clip) | {"input_resolution": torch.tensor(64), "logit_scale": torch.tensor(4.6)}
    yield Case("other names", "CLIP of OpenAI", _pickle(tower), clip)
    outer = {f"module.{key}": value for key, value in tower.items()}
    yield Case("other names", "CLIP of OpenAI, prefix module.", _pickle(outer), clip)
    for prefix in ("", "opt/target/"):
        arrays = {prefix + key: value for key, value in jax_archive(network(TINY)).items()}
        yield Case("other names", f"JAX, prefix {prefix or 'none'}", _arrays(arrays), network(TINY))
    third = dict(network("vit_small_patch16_dinov3").state_dict())
    authors = {
        key.replace("reg_token", "storage_tokens")
        .replace("gamma_1", "ls1.gamma")
        .replace("gamma_2", "ls2.gamma"): value
        for key, value in third.items()
    }
    authors |= {"mask_token": torch.zeros(1, 96), "rope_embed.periods": torch.ones(8)}
    source = network("vit_small_patch16_dinov3")
    yield Case("other names", "DINOv3 of its authors", _pickle(authors), source, hints("vit_small_patch16_dinov3"))


def refused() -> Iterator[Case]:
    """Files that hold no network that can be taken."""
    for name, make in {**_formats(), **_networks()}.items():
        yield Case("refused", name, make)
    for name, make in _pickles().items():
        yield Case("refused", name, make, hints=hints(TINY))


def _pickle(document: Any) -> Make:
    def make(folder: Path) -> Path:
        torch.save(document, folder / "file.pth")
        return folder / "file.pth"

    return make


def _arrays(arrays: dict[str, np.ndarray]) -> Make:
    def make(folder: Path) -> Path:
        np.savez(folder / "file.npz", **arrays)
        return folder / "file.npz"

    return make


def _bytes(content: bytes, name: str = "file.pth") -> Make:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def _content() -> bytes:
    buffer = io.BytesIO()
    torch.save(network(TINY).state_dict(), buffer)
    return buffer.getvalue()


def _archive(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("weights.pth", _content())
    else:
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            information = tarfile.TarInfo("weights.pth")
            information.size = 3
            tar.addfile(information, io.BytesIO(b"abc"))
    return buffer.getvalue()


def _picture(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, kind)
    return buffer.getvalue()


def _script() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), buffer)
    return buffer.getvalue()


def _formats() -> dict[str, Make]:
    content = _content()
    model = onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], []))
    lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"
    return {
        "empty file": _bytes(b""),
        "cut in half": _bytes(content[: len(content) // 2]),
        "text": _bytes(b"hello\n"),
        "zeros": _bytes(bytes(4096)),
        "gzip": _bytes(gzip.compress(content)),
        "bzip2": _bytes(bz2.compress(content[:1000])),
        "xz": _bytes(lzma.compress(content[:1000])),
        "Zstandard": _bytes(b"\x28\xb5\x2f\xfd" + bytes(100)),
        "7z": _bytes(b"7z\xbc\xaf\x27\x1c" + bytes(100)),
        "ZIP": _bytes(_archive("zip")),
        "tar": _bytes(_archive("tar")),
        "HDF5": _bytes(b"\x89HDF\r\n\x1a\n" + bytes(100), "file.h5"),
        "GGUF": _bytes(b"GGUF" + bytes(100), "file.gguf"),
        "Git LFS pointer": _bytes(lfs),
        "web page": _bytes(b"<!DOCTYPE html><html></html>"),
        "web page, with a mark": _bytes(b"\xef\xbb\xbf <html></html>"),
        "XML": _bytes(b"<?xml version='1.0'?><a/>"),
        "JSON": _bytes(b'{"a": 1}'),
        "index without its parts": _bytes(b'{"weight_map": {"a": "b.safetensors"}}', "model.safetensors.index.json"),
        "index under another name": _bytes(b'{"metadata": {"total_size": 3}, "weight_map": {}}', "index.json"),
        "PNG": _bytes(_picture("PNG")),
        "JPEG": _bytes(_picture("JPEG")),
        "one NumPy array": _bytes(b"\x93NUMPY" + bytes(100), "file.npy"),
        "NumPy archive of something else": _arrays({"a": np.zeros(3)}),
        "NumPy archive of objects": _arrays({"embedding/kernel": np.array([print], dtype=object)}),
        "TorchScript": _bytes(_script()),
        "ONNX": _bytes(model.SerializeToString(), "file.onnx"),
        "ONNX named .pth": _bytes(model.SerializeToString()),
        "engine": _bytes(b"ptrt" + bytes(100), "file.engine"),
        "cut safetensors": _bytes((1000).to_bytes(8, "little") + b"{}", "file.safetensors"),
        "empty folder": lambda folder: folder,
        "folder with other files": _beside,
        "missing file": lambda folder: folder / "none.pth",
        "web address": lambda folder: Path("https://example.com/vit.pth"),
    }


def _beside(folder: Path) -> Path:
    (folder / "README.md").write_text("weights elsewhere")
    return folder


class Unknown:
    """What a pickle may hold and must never be run."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return print, ("run",)


def _pickles() -> dict[str, Make]:
    state = dict(network(TINY).state_dict())
    key = "blocks.0.mlp.fc1.weight"
    codes = torch.quantize_per_tensor(state[key], 0.1, 0, torch.qint8)
    return {
        "pickle that runs code": _pickle({"state_dict": state, "extra": Unknown()}),
        "whole module": _pickle(nn.Linear(2, 2)),
        "list": _pickle([1, 2, 3]),
        "one tensor": _pickle(torch.zeros(3)),
        "number": _pickle(3),
        "empty dictionary": _pickle({}),
        "no tensors": _pickle({"a": 1, "b": "c"}),
        "wrappers without end": _pickle({"model": {"model": {"model": {"model": {"model": {"model": state}}}}}}),
        "two networks": _pickle({f"{side}.{name}": value for side in ("a", "b") for name, value in state.items()}),
        "int8 codes": _pickle({**state, key: state[key].to(torch.int8)}),
        "float8 codes": _pickle({**state, key: state[key].to(torch.float8_e4m3fn)}),
        "quantized": _pickle({**state, key: codes}),
        "sparse": _pickle({**state, key: state[key].to_sparse()}),
        "complex": _pickle({**state, key: state[key].to(torch.complex64)}),
        "a weight missing": _pickle({name: value for name, value in state.items() if name != key}),
        "a weight of another shape": _pickle({**state, key: state[key][:5]}),
        "a weight too many": _pickle({**state, "blocks.0.adapter.weight": torch.zeros(2)}),
        "scalars for weights": _pickle({name: torch.tensor(0.0) for name in state}),
    }


def _networks() -> dict[str, Make]:
    names = ("resnet18", "swin_tiny_patch4_window7_224", "convnext_atto", "mixer_s32_224", "cait_xxs24_224")
    found = {f"{name} of timm": _pickle(dict(timm.create_model(name).state_dict())) for name in names}
    unnamed = {f"{name}, not named": _pickle(dict(network(name).state_dict())) for name in SMALL if name != TINY}
    hugging = {
        "CLIP of transformers": {"vision_model.embeddings.patch_embedding.weight": torch.zeros(8, 3, 4, 4)},
        "BERT": {"bert.embeddings.word_embeddings.weight": torch.zeros(8, 4)},
        "adapter (LoRA)": {"base_model.model.blocks.0.attn.qkv.lora_A.weight": torch.zeros(4, 8)},
        "torchvision, cut": {"encoder.layers.encoder_layer_0.self_attention.in_proj_weight": torch.zeros(6, 2)},
        "CLIP, cut": {"visual.class_embedding": torch.zeros(8)},
        "JAX names in a pickle, cut": {"embedding/kernel": torch.zeros(4, 4, 3, 8)},
    }
    typed = {"config.json of another family": _another_family}
    return {**found, **unnamed, **{name: _pickle(state) for name, state in hugging.items()}, **typed}


def _another_family(folder: Path) -> Path:
    torch.save({"embeddings.patch_embeddings.projection.weight": torch.zeros(8, 3, 4, 4)}, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps({"model_type": "yolos"}))
    return folder


def told() -> Iterator[Case]:
    """Files of a network that the user names wrongly."""
    name = TINY
    state = dict(network(name).state_dict())
    for wrong in ("vit_small_patch16_224", "resnet18", "swin_tiny_patch4_window7_224", "no_such_network"):
        yield Case("refused", f"{name} named {wrong}", _pickle(state), None, Hints(wrong, {"depth": 2}))
