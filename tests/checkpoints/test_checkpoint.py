"""Checkpoints load in every wrapping people use; everything else is refused in words, and runs no code."""

import dataclasses
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import SMALL, refused_as, small_images, small_tofe
from tofe_export.checkpoints.checkpoint import Checkpoint, load, save, weights_sha256
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.errors import InputError
from tofe_export.model.fixed_path import FixedPath


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = small_tofe()
    path = tmp_path_factory.mktemp("checkpoint") / "ckpt.pth"
    save(path, Checkpoint(model, (0.5, 0.3, 0.2), Preprocessing.of_backbone(model.vit), {"accuracy": 0.9}, "digits"))
    return path


@pytest.fixture
def document(saved: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(saved, weights_only=True)
    return found


def logits(path: Path) -> torch.Tensor:
    with torch.no_grad():
        return load(path).model.forward_fixed(small_images(2), FixedPath((8, 5, 3))).logits


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_round_trip(saved: Path, tmp_path: Path, suffix: str) -> None:
    first = load(saved)
    copy = tmp_path / f"copy{suffix}"
    save(copy, first)
    again = load(copy)
    assert again.model.config == first.model.config
    assert again.keep_ratios == (0.5, 0.3, 0.2)
    assert again.keep_counts() == (8, 5, 3)
    assert again.preprocessing == first.preprocessing
    assert dict(again.metrics) == {"accuracy": 0.9}
    assert again.data == "digits"
    assert torch.equal(logits(copy), logits(saved))


def prefixed(document: dict[str, Any]) -> dict[str, Any]:
    weights = {f"module.{key}": value for key, value in document["state_dict"].items()}
    return {**document, "state_dict": weights}


def in_model(document: dict[str, Any]) -> dict[str, Any]:
    header = {key: value for key, value in document.items() if key != "state_dict"}
    return {**header, "model": document["state_dict"], "optimizer": {"state": {}}, "epoch": 3}


def nested(document: dict[str, Any]) -> dict[str, Any]:
    return {"model": document, "epoch": 3}


def averaged(document: dict[str, Any]) -> dict[str, Any]:
    """The EMA copy is the trained one; the raw weights beside it are spoilt so that the choice shows."""
    spoilt = {key: torch.zeros_like(value) for key, value in document["state_dict"].items()}
    return {**document, "state_dict": spoilt, "state_dict_ema": document["state_dict"]}


@pytest.mark.parametrize("wrap", [prefixed, in_model, nested, averaged])
def test_wrappings(saved: Path, document: dict[str, Any], tmp_path: Path, wrap: Callable[..., dict[str, Any]]) -> None:
    path = tmp_path / "wrapped.pth"
    torch.save(wrap(document), path)
    assert torch.equal(logits(path), logits(saved))


class Spy:
    """A pickle that writes a file when it is opened."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_pickle_that_runs_code_does_not_run(tmp_path: Path, writer: str) -> None:
    trace, path = tmp_path / "it-ran", tmp_path / "evil.pth"
    if writer == "torch":
        torch.save({"state_dict": Spy(trace)}, path)
    else:
        path.write_bytes(pickle.dumps({"state_dict": Spy(trace)}))
    with refused_as("pickle-runs-code", path=path):
        load(path)
    assert not trace.exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated(saved: Path, tmp_path: Path, share: float, suffix: str) -> None:
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    save(whole, load(saved))
    content = whole.read_bytes()
    cut.write_bytes(content[: int(len(content) * share)])
    with refused_as("not-a-checkpoint", path=cut):
        load(cut)


def test_other_files(tmp_path: Path) -> None:
    with refused_as("no-checkpoint", path=tmp_path / "nothing.pth"):
        load(tmp_path / "nothing.pth")
    with refused_as("folder-without-checkpoint", path=tmp_path):
        load(tmp_path)
    text = tmp_path / "notes.pth"
    text.write_text("hello, I am a text file\n")
    with refused_as("not-a-checkpoint"):
        load(text)
    number = tmp_path / "number.pth"
    torch.save(3, number)
    with refused_as("not-a-checkpoint"):
        load(number)
    empty = tmp_path / "empty.pth"
    torch.save({"epoch": 1}, empty)
    with pytest.raises(InputError, match="only: epoch") as caught:
        load(empty)
    assert caught.value.code == "no-weights"


def change(document: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    return {**document, "config": {**document["config"], key: value}}


@pytest.mark.parametrize(
    ("key", "value", "code", "words"),
    [
        ("backbone", "vit_tinny_patch16_224", "unknown-backbone", "vit_tiny_patch16_224"),
        ("backbone", "resnet18", "not-a-plain-vit", "resnet18"),
        ("backbone_args", {**SMALL, "embed_dim": 64}, "weights-do-not-fit", r"stages\.|vit\."),
        ("backbone_args", {**SMALL, "depth": 5}, "weights-do-not-fit", r"vit\.blocks\.4.* is missing"),
        ("backbone_args", {**SMALL, "depth": 3}, "stage-starts", "3 blocks"),
        ("selector", "magic", "unknown-selector", "magic"),
        ("colour", "red", "config-unknown-key", "colour"),
        ("stage_starts", ["a"], "config-stage-starts", "stage_starts"),
    ],
)
def test_configurations_that_do_not_fit(
    document: dict[str, Any], tmp_path: Path, key: str, value: Any, code: str, words: str
) -> None:
    path = tmp_path / "changed.pth"
    torch.save(change(document, key, value), path)
    with pytest.raises(InputError, match=words) as caught:
        load(path)
    assert (caught.value.code, caught.value.exit_code) == (code, 2)
    assert caught.value.next_step


@pytest.mark.parametrize("ratios", [[0.5, 0.5], [0.5, 0.5, 1.5], [0.5, 0.5, True], ["a", "b", "c"]])
def test_keep_ratios_that_make_no_sense(document: dict[str, Any], tmp_path: Path, ratios: list[Any]) -> None:
    path = tmp_path / "ratios.pth"
    torch.save({**document, "keep_ratios": ratios}, path)
    with refused_as("checkpoint-keep-ratios", path=path):
        load(path)


def test_a_data_set_that_is_not_a_name_is_unknown(document: dict[str, Any], tmp_path: Path) -> None:
    torch.save({**document, "data": None}, tmp_path / "none.pth")
    assert load(tmp_path / "none.pth").data == ""


def test_a_checkpoint_that_names_another_file_does_not_open_it(document: dict[str, Any], tmp_path: Path) -> None:
    # timm.create_model would read `checkpoint_path`, in its older releases by running the pickle.
    proof, evil, path = tmp_path / "proof", tmp_path / "evil.pth", tmp_path / "clean.pth"
    evil.write_bytes(pickle.dumps(Spy(proof)))
    arguments = {**document["config"]["backbone_args"], "checkpoint_path": str(evil)}
    torch.save({**document, "config": {**document["config"], "backbone_args": arguments}}, path)
    with refused_as("unknown-backbone-argument", name="checkpoint_path"):
        load(path)
    assert not proof.exists()


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("device", "meta", "unknown-backbone-argument"),
        ("pretrained", True, "unknown-backbone-argument"),
        ("in_chans", 1, "in-chans"),
        ("num_heads", 0, "backbone-args"),
        ("patch_size", 0, "backbone-args"),
        ("embed_dim", {"a": 1}, "backbone-argument-kind"),
    ],
)
def test_backbone_arguments_that_make_no_sense(
    document: dict[str, Any], tmp_path: Path, name: str, value: Any, code: str
) -> None:
    path = tmp_path / "odd.pth"
    arguments = {**document["config"]["backbone_args"], name: value}
    torch.save({**document, "config": {**document["config"], "backbone_args": arguments}}, path)
    with refused_as(code):
        load(path)


@pytest.mark.parametrize("key", ["config", "preprocessing", "classes"])
@pytest.mark.parametrize("value", [3, "text"])
def test_headers_of_another_kind(document: dict[str, Any], tmp_path: Path, key: str, value: Any) -> None:
    path = tmp_path / "odd.pth"
    torch.save({**document, key: value}, path)
    code = {"config": "config-not-a-mapping", "preprocessing": "preprocessing", "classes": "checkpoint-classes"}[key]
    with refused_as(code):
        load(path)


def test_metrics_keep_what_json_can_hold(document: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "odd.pth"
    metrics = {"accuracy": 0.5, "kept": [1, 2], "bytes": b"x", "deep": [[1]], "weight": torch.ones(1), 3: 1}
    torch.save({**document, "metrics": metrics}, path)
    assert load(path).metrics == {"accuracy": 0.5, "kept": [1, 2]}


@pytest.mark.parametrize("content", [b"<html>", b"\x89PNG\r\n", b"{}", b"a: b\n", b"\x1f\x8b\x08", b"\x08\x0a\x12"])
def test_files_of_other_kinds_are_not_called_dangerous(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.pth"
    path.write_bytes(content * 40)
    with refused_as("not-a-checkpoint"):
        load(path)


def test_stages_of_another_architecture_are_no_tofe_weights(tmp_path: Path) -> None:
    path = tmp_path / "convnext.pth"
    torch.save({"stages.0.blocks.0.conv_dw.weight": torch.zeros(3)}, path)
    with refused_as("backbone-unknown"):
        load(path)


def test_weights_without_configuration(document: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "bare.pth"
    torch.save(document["state_dict"], path)
    with refused_as("no-configuration", path=path):
        load(path)


HEAD = "vit.head.weight"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda weight: weight.to_sparse(), r"is not a dense tensor but sparse coo"),
        (lambda weight: weight.to_sparse_csr(), r"is not a dense tensor but sparse csr"),
        (lambda weight: weight.to("meta"), r"has no values, only a shape"),
        (lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8), r"is quantized"),
        (lambda weight: weight.to(torch.complex64), r"holds complex numbers"),
        (lambda weight: weight.to(torch.int8), r"is in int8, and its scale is not known"),
        (lambda weight: weight.to(torch.float8_e4m3fn), r"is in float8_e4m3fn, and its scale is not known"),
        (lambda weight: weight[:, :-1].clone(), r"is \[5, 31\], expected \[5, 32\]"),
        (lambda weight: torch.zeros(1).expand(2, 1 << 40), r"is \[2, 1099511627776\], expected"),
    ],
    ids=["coo", "csr", "meta", "quantized", "complex", "int8", "fp8", "shape", "strides"],
)
@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:.*quantize")
def test_weights_that_are_no_plain_numbers_are_named(
    document: dict[str, Any], tmp_path: Path, change: Callable[[torch.Tensor], torch.Tensor], complaint: str
) -> None:
    document["state_dict"][HEAD] = change(document["state_dict"][HEAD])
    torch.save(document, tmp_path / "odd.pth")
    with pytest.raises(InputError, match=rf"vit\.head\.weight.*{complaint}") as caught:
        load(tmp_path / "odd.pth")
    assert caught.value.code == ("weights-do-not-fit" if "expected" in complaint else "weight-unusable")
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"depth": 10**6}, "backbone-too-deep"),
        ({"depth": 10**400}, "backbone-too-deep"),
        ({"depth": 999, "embed_dim": 384}, "too-few-weights"),
        ({"num_classes": 10**9}, "too-few-weights"),
        ({"embed_dim": 10**6}, "too-few-weights"),
        ({"reg_tokens": 10**9}, "too-few-weights"),
        ({"img_size": 10**5}, "too-few-weights"),
    ],
)
def test_a_network_that_the_file_cannot_fill_is_not_made(
    document: dict[str, Any], tmp_path: Path, arguments: dict[str, Any], code: str
) -> None:
    document["config"]["backbone_args"] |= arguments
    torch.save(document, tmp_path / "large.pth")
    with refused_as(code):
        load(tmp_path / "large.pth")


def test_half_precision_weights_are_taken_as_they_are(document: dict[str, Any], tmp_path: Path) -> None:
    weights = document["state_dict"]
    document["state_dict"] = {key: value.to(torch.bfloat16) for key, value in weights.items()}
    torch.save(document, tmp_path / "half.pth")
    found = load(tmp_path / "half.pth").model.state_dict()
    assert all(torch.equal(found[key], value.to(torch.bfloat16).float()) for key, value in weights.items())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_classes_keep_their_order(saved: Path, tmp_path: Path, suffix: str) -> None:
    """The order of the logits, not of the alphabet."""
    classes = ("wasp", "ant", "Bee", "moth", "\u00e4nt")
    save(tmp_path / f"named{suffix}", dataclasses.replace(load(saved), classes=classes, keep_ratios=(1.0, 0.5, 0.5)))
    found = load(tmp_path / f"named{suffix}")
    assert found.classes == classes
    assert found.keep_counts() == (16, 8, 8)


def test_every_prefix_of_parallel_training_is_stripped(document: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "twice.pth"
    weights = {f"module.module.{key}": value for key, value in document["state_dict"].items()}
    torch.save({**document, "state_dict": weights}, path)
    assert load(path).weights_sha256


def test_the_hash_of_weights_tells_names_shapes_types_and_values_apart(saved: Path, tmp_path: Path) -> None:
    def digest(name: str, *values: torch.Tensor) -> str:
        holder = torch.nn.Module()
        for index, value in enumerate(values):
            holder.register_buffer(f"{name}{index}", value)
        return weights_sha256(holder)  # type: ignore[arg-type]

    plain = torch.zeros(2, 3)
    one = plain.clone()
    one[1, 2] = 1
    found = [
        digest("a", plain),
        digest("b", plain),
        digest("a", plain.view(3, 2)),
        digest("a", one),
        digest("a", plain.to(torch.int32)),
        digest("a", plain, one),
        digest("a", one, plain),
    ]
    assert len(set(found)) == len(found)
    assert digest("a", plain.T.contiguous().T) == found[0], "however it lies in memory"
    first = load(saved)
    save(tmp_path / "again.safetensors", first)
    assert load(tmp_path / "again.safetensors").weights_sha256 == first.weights_sha256
    with torch.no_grad():
        first.model.stages[0].selector.out.bias[0] += 1e-3
    save(tmp_path / "other.pth", first)
    assert load(tmp_path / "other.pth").weights_sha256 != first.weights_sha256
