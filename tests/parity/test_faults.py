"""Every planted fault turns verify red, and the message names the stage or the cause."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from tests.helpers import small_tofe
from tofe_export.api.build import build
from tofe_export.api.export import export
from tofe_export.api.verify import verify
from tofe_export.checkpoints.checkpoint import Checkpoint, load, save
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.documents.verification import Verifications
from tofe_export.errors import InputError
from tofe_export.files.reading import sha256
from tofe_export.graph.modules import module_of
from tofe_export.precision.half import to_half

KEEP = (8, 5, 3)
# A fault must show within the wider limits of coarse precisions too.
in_every_precision = pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
Plant = Callable[[ir.Model], None]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ckpt.pth and model.onnx, as a user has them."""
    folder = tmp_path_factory.mktemp("faults")
    model = small_tofe()
    save(folder / "ckpt.pth", Checkpoint(model, (0.5, 0.3, 0.2), Preprocessing.of_backbone(model.vit), {}, "digits"))
    export(folder / "ckpt.pth", folder / "model.onnx", keep=KEEP)
    return folder


@pytest.fixture
def planted(run_folder: Path, tmp_path: Path) -> Callable[..., Verifications]:
    """Verifies model.onnx after `plant` changed it; its manifest goes along unless it is given."""

    def verified(plant: Plant, **manifest: Any) -> Verifications:
        target = tmp_path / "model.onnx"
        model = ir.load(run_folder / "model.onnx")
        plant(model)
        ir.save(model, target)
        known = json.loads((run_folder / "model.onnx.json").read_text())
        changed = {**known, "sha256": sha256(target), **manifest}
        (tmp_path / "model.onnx.json").write_text(json.dumps(changed))
        return verify(target, against=run_folder / "ckpt.pth", samples=12, threshold=False)

    return verified


def nothing(model: ir.Model) -> None:
    """The file as it is."""


def node_called(model: ir.Model, name: str) -> ir.Node:
    (found,) = [node for node in model.graph if node.name == name]
    return found


def rearrange_of(model: ir.Model, stage: int) -> ir.Node:
    return [node for node in model.graph if node.op_type == "ScatterRearrange"][stage]


def constant(model: ir.Model, name: str, values: np.ndarray) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(values, name=name))
    model.graph.register_initializer(value)
    return value


def behind(model: ir.Model, value: ir.Value, node: ir.Node) -> None:
    """Puts `node`, which reads `value`, between it and all its other readers; names move to what is read."""
    made = node.outputs[0]
    value.name, made.name = f"{value.name}.right", value.name
    made.dtype, made.shape = value.dtype, value.shape
    readers = [(user, index) for user, index in value.uses() if user is not node]
    producer = value.producer()
    assert producer is not None
    model.graph.insert_after(producer, node)
    for user, index in readers:
        user.replace_input_with(index, made)


def failure(result: Verifications) -> str:
    assert result.exit_code == 1
    assert result.passed is False
    return result.failures[0]


def test_nothing_planted_is_green(planted: Callable[..., Verifications]) -> None:
    result = planted(nothing)
    assert result.exit_code == 0
    assert result.failures == ()
    assert [check.passed for check in result.artifacts[0].checks] == [True] * 9


@in_every_precision
def test_two_swapped_tokens(planted: Callable[..., Verifications], precision: str) -> None:
    def plant(model: ir.Model) -> None:
        tokens = rearrange_of(model, 0).outputs[0]
        order = np.arange(17)
        order[[4, 9]] = 9, 4
        behind(model, tokens, ir.node("Gather", [tokens, constant(model, "order", order)], attributes={"axis": 1}))

    message = failure(planted(plant, precision=precision))
    assert message.startswith("On the same tokens stage 0 differs")
    assert "Rows 4 and 9 of its tokens are swapped" in message


@in_every_precision
def test_a_scatter_with_a_wrong_index(planted: Callable[..., Verifications], precision: str) -> None:
    def plant(model: ir.Model) -> None:
        node = rearrange_of(model, 1)
        perm = node.inputs[2]
        assert perm is not None
        # Every index one too high: a ring of tokens, each in its neighbour's place.
        one, count = (constant(model, name, np.array(v, dtype=np.int32)) for name, v in (("one", 1), ("count", 16)))
        added = ir.node("Add", [perm, one])
        wrapped = ir.node("Mod", [added.outputs[0], count])
        model.graph.insert_before(node, [added, wrapped])
        node.replace_input_with(2, wrapped.outputs[0])

    message = failure(planted(plant, precision=precision))
    assert message.startswith("On the same tokens stage 1 differs")
    assert "the rearrange uses a wrong index" in message


@pytest.mark.parametrize("off", [-1, 1])
def test_keep_count_off_by_one(planted: Callable[..., Verifications], off: int) -> None:
    def plant(model: ir.Model) -> None:
        node = node_called(model, "stages.1/TokenPartition")
        node.attributes["keep"] = ir.AttrInt64("keep", KEEP[1] + off)

    assert failure(planted(plant)).startswith(f"Stage 1 of the graph keeps {5 + off} tokens; its manifest says 5.")


def test_a_manifest_with_other_keep_counts(planted: Callable[..., Verifications]) -> None:
    assert failure(planted(nothing, keep=[8, 6, 3])).startswith("Stage 1 of the graph keeps 5 tokens; its manifest")


@in_every_precision
def test_an_approximator_left_out(planted: Callable[..., Verifications], precision: str) -> None:
    def plant(model: ir.Model) -> None:
        last = [node for node in model.graph if module_of(node).startswith("stages.0.approximator")][-1]
        frozen = node_called(model, "stages.0/TokenPartition").outputs[1]
        for user, index in list(last.outputs[0].uses()):
            user.replace_input_with(index, frozen)

    message = failure(planted(plant, precision=precision))
    assert message.startswith("On the same tokens stage 0 differs")
    assert "the approximator was omitted" in message


def test_a_scatter_with_an_index_out_of_range(planted: Callable[..., Verifications]) -> None:
    def plant(model: ir.Model) -> None:
        node = rearrange_of(model, 1)
        perm = node.inputs[2]
        assert perm is not None
        added = ir.node("Add", [perm, constant(model, "count", np.array(16, dtype=np.int32))])
        model.graph.insert_before(node, added)
        node.replace_input_with(2, added.outputs[0])

    result = planted(plant)
    message = failure(result)
    assert message.startswith("The model does not run on 1 images")
    assert message.endswith("It fails in stage 1.")
    assert "baked" not in message
    assert result.artifacts[0].checks[-1].passed is None, "what was not compared is not passed over"


def test_wrong_mean_and_std_in_the_manifest(planted: Callable[..., Verifications], run_folder: Path) -> None:
    known = json.loads((run_folder / "model.onnx.json").read_text())["preprocessing"]
    other = Preprocessing.from_dict({**known, "mean": [0.4, 0.4, 0.4]})
    message = failure(planted(nothing, preprocessing=other.to_dict(), preprocessing_sha256=other.digest()))
    assert "prepared in another way" in message
    assert "mean is [0.4, 0.4, 0.4], not [0.5, 0.5, 0.5]" in message


def test_a_manifest_whose_preprocessing_was_edited(planted: Callable[..., Verifications]) -> None:
    assert "changed by hand" in failure(planted(nothing, preprocessing_sha256="0" * 64))


def test_another_normalisation_inside_the_model(planted: Callable[..., Verifications]) -> None:
    def plant(model: ir.Model) -> None:
        images = model.graph.inputs[0]
        scaled = ir.node("Mul", [images, constant(model, "std", np.array(0.8, dtype=np.float32))])
        readers = list(images.uses())
        model.graph.insert_before(model.graph[0], scaled)
        scaled.outputs[0].name = "normalised"
        for user, index in readers:
            if user is not scaled:
                user.replace_input_with(index, scaled.outputs[0])

    message = failure(planted(plant))
    assert "vit.patch_embed.proj" in message
    assert "images reach it prepared otherwise" in message


def test_bgr_for_rgb(planted: Callable[..., Verifications]) -> None:
    def plant(model: ir.Model) -> None:
        weight = model.graph.initializers["vit.patch_embed.proj.weight"]
        assert weight.const_value is not None
        flipped = np.ascontiguousarray(weight.const_value.numpy()[:, ::-1])
        weight.const_value = ir.tensor(flipped, name=weight.name)

    message = failure(planted(plant))
    assert "reads BGR where PyTorch reads RGB" in message
    assert "vit.patch_embed.proj" in message


def test_bgr_is_not_blamed_where_it_explains_nothing(planted: Callable[..., Verifications]) -> None:
    """The digits are gray: with red and blue exchanged they are the same images."""

    def plant(model: ir.Model) -> None:
        weight = model.graph.initializers["vit.blocks.2.mlp.fc1.bias"]
        assert weight.const_value is not None
        weight.const_value = ir.tensor(weight.const_value.numpy() + 0.5, name=weight.name)

    result = planted(plant, precision="int8")
    assert "BGR" not in " ".join([failure(result), *result.failures])


def test_fp16_overflow(tmp_path: Path) -> None:
    network = small_tofe(depth=3, stage_starts=(1,))
    # One channel of 70000 before GELU: fine in float32, infinite in float16.
    network.vit.blocks[1].mlp.fc1.bias.data[3] = 60000.0
    network.vit.blocks[1].mlp.fc1.weight.data[3] *= 1e5
    network.vit.blocks[1].mlp.fc2.weight.data[:, 3] *= 1e-6
    checkpoint, exported = tmp_path / "ckpt.pth", tmp_path / "model.onnx"
    save(checkpoint, Checkpoint(network, (0.5,), Preprocessing.of_backbone(network.vit), {}, "digits"))
    export(checkpoint, exported, keep=(8,))
    model = ir.load(exported)
    to_half(model, "fp16")
    ir.save(model, exported)
    manifest = json.loads((tmp_path / "model.onnx.json").read_text())
    manifest |= {"sha256": sha256(exported), "precision": "fp16"}
    (tmp_path / "model.onnx.json").write_text(json.dumps(manifest))
    result = verify(exported, against=checkpoint, samples=8, threshold=False)
    message = failure(result)
    assert "vit.blocks.1.mlp.fc1 (stage 0) gives values that are not finite; float16 ends at 65504" in message


def test_an_engine_of_another_checkpoint_is_red_without_a_gpu(run_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    engine = tmp_path / "model.engine"
    build(run_folder / "model.onnx", engine, backend="rtx")
    known = load(run_folder / "ckpt.pth")
    other = small_tofe(seed=7)
    save(tmp_path / "other.pth", dataclasses.replace(known, model=other))
    message = failure(verify(engine, against=tmp_path / "other.pth"))
    assert "It was made of another checkpoint: of ckpt.pth" in message


def test_an_onnx_file_of_another_checkpoint(run_folder: Path, tmp_path: Path) -> None:
    known = load(run_folder / "ckpt.pth")
    save(tmp_path / "other.pth", dataclasses.replace(known, model=small_tofe(seed=7)))
    result = verify(run_folder / "model.onnx", against=tmp_path / "other.pth", samples=8)
    assert "It was made of another checkpoint: of ckpt.pth" in failure(result)
    assert len(result.failures) > 1, "and the numbers differ too"


def test_the_same_weights_in_another_file_pass(run_folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "copy.safetensors", load(run_folder / "ckpt.pth"))
    copy = tmp_path / "copy.safetensors"
    result = verify(run_folder / "model.onnx", against=copy, samples=8, threshold=False)
    assert result.exit_code == 0
    assert result.artifacts[0].exported_from_this_file is False


def test_a_stale_manifest(run_folder: Path, tmp_path: Path) -> None:
    for name in ("model.onnx", "model.onnx.json"):
        shutil.copy(run_folder / name, tmp_path / name)
    with (tmp_path / "model.onnx").open("ab") as file:
        file.write(b"\0")
    result = verify(tmp_path / "model.onnx", against=run_folder / "ckpt.pth")
    assert result.exit_code == InputError.exit_code
    assert result.passed is False
    problem = result.artifacts[0].error
    assert problem is not None
    assert problem.code == "manifest-hash"


def test_a_batch_dimension_baked_into_the_input(planted: Callable[..., Verifications]) -> None:
    def plant(model: ir.Model) -> None:
        for value in (*model.graph.inputs, *model.graph.outputs):
            value.shape = ir.Shape([2, *list(value.shape or ())[1:]])

    assert "2 images, no more and no fewer: a batch size is baked in" in failure(planted(plant))


def test_a_batch_dimension_baked_into_a_reshape(planted: Callable[..., Verifications]) -> None:
    def plant(model: ir.Model) -> None:
        (logits,) = model.graph.outputs
        shape = constant(model, "two", np.array([2, -1], dtype=np.int64))
        reshaped = ir.node("Reshape", [logits, shape])
        logits.name, reshaped.outputs[0].name = "right", "logits"
        reshaped.outputs[0].dtype = logits.dtype
        model.graph.append(reshaped)
        model.graph.outputs[0] = reshaped.outputs[0]

    assert "a batch size is baked in" in failure(planted(plant)).lower()


def test_no_output_that_could_be_compared(planted: Callable[..., Verifications]) -> None:
    def plant(model: ir.Model) -> None:
        model.graph.outputs[0].name = "scores"

    assert "It returns neither logits nor features" in failure(planted(plant))


@pytest.mark.parametrize("axes", [[1], [0, 1]])
def test_logits_that_lost_an_axis(planted: Callable[..., Verifications], axes: list[int]) -> None:
    def plant(model: ir.Model) -> None:
        (logits,) = model.graph.outputs
        largest = ir.node("ReduceMax", [logits, constant(model, "axes", np.array(axes))], {"keepdims": 0})
        logits.name, largest.outputs[0].name = "right", "logits"
        largest.outputs[0].dtype = logits.dtype
        model.graph.append(largest)
        model.graph.outputs[0] = largest.outputs[0]

    assert ("It returns logits of shape [" if axes == [1] else "a batch size is baked in") in failure(planted(plant))


def test_images_of_a_batch_that_see_each_other(planted: Callable[..., Verifications]) -> None:
    def plant(model: ir.Model) -> None:
        (logits,) = model.graph.outputs
        axes = constant(model, "axes", np.array([0], dtype=np.int64))
        mean = ir.node("ReduceMean", [logits, axes])
        mixed = ir.node("Sub", [logits, mean.outputs[0]])
        logits.name, mixed.outputs[0].name = "right", "logits"
        mixed.outputs[0].dtype, mixed.outputs[0].shape = logits.dtype, logits.shape
        model.graph.extend([mean, mixed])
        model.graph.outputs[0] = mixed.outputs[0]

    assert "An image gets other logits in a batch of 1 than in one of 3" in failure(planted(plant))
