"""Files in other code's names, against that code: torchvision, CLIP, JAX, DINOv2, DINOv3. And files in parts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor

from tests.helpers import refused_as
from tofe_export.checkpoints.checkpoint import Checkpoint, load
from tofe_export.checkpoints.foreign import Hints

TWO_BLOCKS = Hints("vit_tiny_patch16_224", {"depth": 2})
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 192, "depth": 2, "num_heads": 3}


def images(size: int = 32) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(3))


def require_equal(loaded: Checkpoint, expected: Tensor, size: int = 32) -> None:
    assert not loaded.model.stages
    with torch.inference_mode():
        torch.testing.assert_close(loaded.model.vit(images(size)), expected, rtol=1e-5, atol=1e-5)


def randomized(network: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return network.eval()


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_torchvision(prefix: str, tmp_path: Path) -> None:
    theirs = randomized(torchvision.models.VisionTransformer(32, 8, 2, 3, 192, 768, num_classes=7))
    path = tmp_path / "vit.pth"
    torch.save({prefix + key: value for key, value in theirs.state_dict().items()}, path)
    loaded = load(path)
    with torch.inference_mode():
        require_equal(loaded, theirs(images()))
    assert loaded.preprocessing.interpolation == "bilinear"
    assert len(loaded.assumed) == 2
    named = load(path, Hints("vit_tiny_patch16_224", SMALL))
    assert named.assumed == ()


def clip_tower(vit: torch.nn.Module) -> dict[str, Tensor]:
    """timm's CLIP image tower under OpenAI's names: the inverse of what is tested, written out here."""
    names = {
        "cls_token": "class_embedding",
        "pos_embed": "positional_embedding",
        "patch_embed.proj.weight": "conv1.weight",
    }
    found = {}
    for key, value in vit.state_dict().items():
        if key == "head.bias":
            continue
        if key == "head.weight":
            found["visual.proj"] = value.T.contiguous()
            continue
        name = names.get(key, key)
        for ours, theirs in (
            ("norm_pre", "ln_pre"),
            ("blocks.", "transformer.resblocks."),
            ("attn.qkv.", "attn.in_proj_"),
            ("attn.proj", "attn.out_proj"),
            ("mlp.fc1", "mlp.c_fc"),
            ("mlp.fc2", "mlp.c_proj"),
        ):
            name = name.replace(ours, theirs)
        name = name.replace(".norm", ".ln_") if "resblocks" in name else name.replace("norm.", "ln_post.")
        found[f"visual.{name}"] = value.squeeze(0).squeeze(0) if key in ("cls_token", "pos_embed") else value
    return found


@pytest.mark.parametrize(("of_openai", "name"), [(True, "quickgelu_"), (False, "")])
def test_clip(of_openai: bool, name: str, tmp_path: Path) -> None:
    arguments = {"img_size": 64, "num_classes": 16, "depth": 12}
    theirs = randomized(timm.create_model(f"vit_base_patch32_clip_{name}224", **arguments))
    with torch.no_grad():
        theirs.head.bias.zero_()  # CLIP's projection has none
    state = clip_tower(theirs) | {"logit_scale": torch.tensor(4.6), "text_projection": torch.randn(8, 16)}
    if of_openai:
        state |= {"input_resolution": torch.tensor(64), "context_length": torch.tensor(77)}
    path = tmp_path / "clip.pt"
    torch.save(state, path)
    loaded = load(path)
    with torch.inference_mode():
        require_equal(loaded, theirs(images(64)), 64)
    assert any("activation" in sentence for sentence in loaded.assumed)
    assert any("text tower" in note for note in loaded.notes)


def jax_archive(vit: torch.nn.Module) -> dict[str, np.ndarray]:
    """timm's ViT under the names of its first authors' archives, transposed as there."""
    state = {key: value.numpy() for key, value in vit.state_dict().items()}
    width, heads = vit.embed_dim, vit.blocks[0].attn.num_heads
    found = {
        "cls": state["cls_token"],
        "embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": state["head.weight"].T,
        "head/bias": state["head.bias"],
    }
    for index in range(len(vit.blocks)):
        block, ours = f"Transformer/encoderblock_{index}/", f"blocks.{index}."
        attention = f"{block}MultiHeadDotProductAttention_1/"
        for number, name in enumerate(("query", "key", "value")):
            rows = slice(number * width, (number + 1) * width)
            found[f"{attention}{name}/kernel"] = state[f"{ours}attn.qkv.weight"][rows].T.reshape(width, heads, -1)
            found[f"{attention}{name}/bias"] = state[f"{ours}attn.qkv.bias"][rows].reshape(heads, -1)
        found[f"{attention}out/kernel"] = state[f"{ours}attn.proj.weight"].T.reshape(heads, -1, width)
        found[f"{attention}out/bias"] = state[f"{ours}attn.proj.bias"]
        for number, name in ((0, "norm1"), (2, "norm2")):
            found[f"{block}LayerNorm_{number}/scale"] = state[f"{ours}{name}.weight"]
            found[f"{block}LayerNorm_{number}/bias"] = state[f"{ours}{name}.bias"]
        for number, name in ((0, "fc1"), (1, "fc2")):
            found[f"{block}MlpBlock_3/Dense_{number}/kernel"] = state[f"{ours}mlp.{name}.weight"].T
            found[f"{block}MlpBlock_3/Dense_{number}/bias"] = state[f"{ours}mlp.{name}.bias"]
    return found


def test_jax(tmp_path: Path) -> None:
    theirs = randomized(timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=5, depth=2))
    path = tmp_path / "Ti_16.npz"
    np.savez(path, **jax_archive(theirs))
    loaded = load(path)
    with torch.inference_mode():
        require_equal(loaded, theirs(images(64)), 64)
    assert len(loaded.assumed) == 1
    assert load(path, Hints("vit_tiny_patch16_224", {"depth": 2})).assumed == ()


def test_a_jax_archive_that_lacks_a_part(tmp_path: Path) -> None:
    theirs = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=5, depth=2)
    arrays = jax_archive(theirs)
    del arrays["Transformer/encoderblock_1/LayerNorm_2/scale"]
    np.savez(tmp_path / "Ti_16.npz", **arrays)
    with refused_as("layout-incomplete"):
        load(tmp_path / "Ti_16.npz")


def test_an_archive_of_objects_is_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "evil.npz", **{"embedding/kernel": np.array([print], dtype=object)})
    with refused_as("not-a-checkpoint"):
        load(tmp_path / "evil.npz")


def test_dinov2_in_its_authors_names(tmp_path: Path) -> None:
    name, arguments = "vit_small_patch14_reg4_dinov2", {"img_size": 56, "depth": 2}
    theirs = randomized(timm.create_model(name, **arguments))
    state = dict(theirs.state_dict())
    state["register_tokens"] = state.pop("reg_token")
    first = torch.randn(1, 1, 384) * 0.1
    state["pos_embed"] = torch.cat([first, state["pos_embed"]], dim=1)
    state["cls_token"] = state["cls_token"] - first
    torch.save({**state, "mask_token": torch.zeros(1, 384)}, tmp_path / "dinov2.pth")
    loaded = load(tmp_path / "dinov2.pth", Hints(name, {"depth": 2}))
    with torch.inference_mode():
        require_equal(loaded, theirs(images(56)), 56)
    assert any("converter" in note for note in loaded.notes)


def test_dinov3_in_its_authors_names(tmp_path: Path) -> None:
    name, arguments = "vit_small_patch16_dinov3", {"img_size": 64, "depth": 2}
    theirs = randomized(timm.create_model(name, **arguments))
    state = {
        key.replace("reg_token", "storage_tokens")
        .replace("gamma_1", "ls1.gamma")
        .replace("gamma_2", "ls2.gamma"): value
        for key, value in theirs.state_dict().items()
    }
    torch.save({**state, "mask_token": torch.zeros(1, 384), "rope_embed.periods": torch.ones(16)}, tmp_path / "d.pth")
    loaded = load(tmp_path / "d.pth", Hints(name, arguments))
    with torch.inference_mode():
        require_equal(loaded, theirs(images(64)), 64)


def parts(folder: Path, ending: str) -> torch.nn.Module:
    """A network in two files and the index that says what lies where."""
    theirs = randomized(timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=5))
    state = theirs.state_dict()
    places = {key: f"part-{index % 2 + 1}-of-2.{ending}" for index, key in enumerate(state)}
    for name in set(places.values()):
        part = {key: value.contiguous() for key, value in state.items() if places[key] == name}
        if ending == "safetensors":
            safetensors.torch.save_file(part, folder / name)
        else:
            torch.save(part, folder / name)
    stem = "model.safetensors" if ending == "safetensors" else "pytorch_model.bin"
    (folder / f"{stem}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return theirs


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
@pytest.mark.parametrize("whole_folder", [True, False])
def test_a_checkpoint_in_parts(ending: str, whole_folder: bool, tmp_path: Path) -> None:
    theirs = parts(tmp_path, ending)
    loaded = load(tmp_path if whole_folder else next(tmp_path.glob("*.index.json")), TWO_BLOCKS)
    with torch.inference_mode():
        require_equal(loaded, theirs(images()))


def test_parts_that_are_not_there_or_elsewhere(tmp_path: Path) -> None:
    parts(tmp_path, "safetensors")
    index = tmp_path / "model.safetensors.index.json"
    (tmp_path / "part-2-of-2.safetensors").rename(tmp_path / "away")
    with refused_as("part-missing"):
        load(index)
    (tmp_path / "away").rename(tmp_path / "part-2-of-2.safetensors")
    document = json.loads(index.read_text())
    key = next(iter(document["weight_map"]))
    index.write_text(json.dumps({"weight_map": {**document["weight_map"], key: "../part-1-of-2.safetensors"}}))
    with refused_as("part-elsewhere"):
        load(index)
    index.write_text(json.dumps({"weight_map": {**document["weight_map"], "vit.extra": "part-1-of-2.safetensors"}}))
    with refused_as("part-incomplete"):
        load(index)
    index.write_text('{"weight_map": 3}')
    with refused_as("not-a-checkpoint"):
        load(index)


def test_a_jax_archive_of_another_depth_or_with_a_layer_before_its_classifier(tmp_path: Path) -> None:
    arrays = jax_archive(timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=5, depth=2))
    np.savez(tmp_path / "Ti_16.npz", **arrays)
    with refused_as("layout-incomplete"):
        load(tmp_path / "Ti_16.npz", Hints("vit_tiny_patch16_224", {"depth": 1}))
    np.savez(tmp_path / "before.npz", **arrays, **{"pre_logits/kernel": np.eye(192, dtype=np.float32)})
    with refused_as("layout-incomplete"):
        load(tmp_path / "before.npz")


def test_an_index_is_known_by_its_parts(tmp_path: Path) -> None:
    parts(tmp_path, "safetensors")
    before = load(tmp_path, TWO_BLOCKS).file_sha256
    path = tmp_path / "part-1-of-2.safetensors"
    part = {key: value + 1 for key, value in safetensors.torch.load_file(path).items()}
    safetensors.torch.save_file(part, path)
    assert load(tmp_path, TWO_BLOCKS).file_sha256 != before
