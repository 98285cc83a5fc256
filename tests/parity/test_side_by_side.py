"""verify is green for the exported model and red, for the right reason, when something was planted."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from tests.helpers import TWO_KEEP, TWO_STAGES, small_images, small_tofe
from tofe_export.artifacts.opened import OpenedOnnx
from tofe_export.data.images import Batch
from tofe_export.graph.export import export_tofe
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.tofe import ToFe
from tofe_export.parity.comparison import Comparison
from tofe_export.parity.metrics import LogitsDifference
from tofe_export.parity.side_by_side import compare
from tofe_export.parity.tolerances import TOLERANCES

KEEP = (8, 5, 3)


def batches() -> list[Batch]:
    return [
        Batch(small_images(count, seed), torch.zeros(count, dtype=torch.int64), ("x",) * count)
        for count, seed in ((4, 1), (3, 2))
    ]


@pytest.fixture(scope="module")
def network() -> ToFe:
    return small_tofe()


@pytest.fixture(scope="module")
def runner(network: ToFe) -> OpenedOnnx:
    """The exported network, in plugin form."""
    return opened(export_tofe(network, KEEP, True, taps=False))


@pytest.fixture(params=[True, False], ids=["plugin", "elide"])
def rearranged(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def compared(network: ToFe, rearranged: bool, plant: Callable[[ir.Graph], None] = lambda graph: None) -> Comparison:
    model = export_tofe(network, KEEP, rearranged, taps=False)
    plant(model.graph)
    return compare(network, opened(model), FixedPath(KEEP, rearranged), batches())


def opened(model: ir.Model) -> OpenedOnnx:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        ir.save(model, path)
        return OpenedOnnx(path)


def weight(graph: ir.Graph, name: str) -> np.ndarray:
    """A copy of an initializer that can be changed and put back with `replace`."""
    tensor = graph.initializers[name].const_value
    assert tensor is not None
    return np.array(tensor.numpy())


def replace(graph: ir.Graph, name: str, values: np.ndarray) -> None:
    graph.initializers[name].const_value = ir.tensor(values, name=name)


def test_the_exported_model_passes(network: ToFe, rearranged: bool) -> None:
    found = compared(network, rearranged)
    assert not found.failures
    document = found.agreement().to_dict()
    assert document["passed"]
    assert document["samples"] == 7
    assert document["top1_agreement"] == 1.0
    assert document["logits"]["max_abs"] <= 1e-4
    assert [stage["index"] for stage in document["stages"]] == [0, 1, 2]
    assert all(stage["selection_overlap"] == 1.0 for stage in document["stages"])
    assert all(stage["max_abs_same_selection"] < 1e-4 for stage in document["stages"])
    assert set(document["accuracy"]) == {"reference", "deployed"}


def test_other_weights_in_a_block_are_numerical_drift(network: ToFe, rearranged: bool) -> None:
    def plant(graph: ir.Graph) -> None:
        name = "vit.blocks.2.mlp.fc1.weight.T"
        replace(graph, name, weight(graph, name)[:, ::-1])

    found = compared(network, rearranged, plant)
    assert any("On the same tokens the logits differ" in sentence for sentence in found.failures)
    stages = found.agreement().to_dict()["stages"]
    assert stages[0]["max_abs_same_selection"] < 1e-4, "block 2 runs in stage 1"
    assert stages[1]["max_abs_same_selection"] > 1e-3


def test_another_selector_is_selection_drift_at_its_stage(network: ToFe, rearranged: bool) -> None:
    def plant(graph: ir.Graph) -> None:
        name = "stages.1.selector.embed.0.weight"
        replace(graph, name, -weight(graph, name))

    found = compared(network, rearranged, plant)
    assert found.stages[0].overlap == 1.0
    assert found.stages[1].overlap < 0.99
    assert found.failures[0].startswith("Stage 1 selected other tokens")
    assert found.same_selection.max_abs < 1e-4, "on the same tokens nothing differs"


def test_a_missing_approximator_is_found(network: ToFe, rearranged: bool) -> None:
    def plant(graph: ir.Graph) -> None:
        for name in ("stages.0.approximator.up.weight.T", "stages.0.approximator.up.bias"):
            replace(graph, name, np.zeros_like(weight(graph, name)))

    found = compared(network, rearranged, plant)
    assert found.failures
    assert found.agreement().to_dict()["stages"][0]["max_abs_same_selection"] > 1e-3


def test_a_perm_that_is_no_permutation_is_found(network: ToFe) -> None:
    def plant(graph: ir.Graph) -> None:
        (node,) = [node for node in graph if node.name == "stages.1/TokenPartition"]
        perm = node.outputs[2]
        half = ir.Value(name="half", const_value=ir.tensor(np.array(2, dtype=np.int32), name="half"))
        graph.register_initializer(half)
        broken = ir.node("Div", [perm, half])
        perm.name, broken.outputs[0].name = "right.perm", "stage1.perm"
        broken.outputs[0].dtype, broken.outputs[0].shape = ir.DataType.INT32, perm.shape
        graph.insert_after(node, broken)

    found = compared(network, True, plant)
    assert any("Stage 1: perm is not a permutation" in sentence for sentence in found.failures)


def test_another_networks_model_is_found(runner: OpenedOnnx) -> None:
    assert compare(small_tofe(seed=5), runner, FixedPath(KEEP, True), batches()).failures


def test_the_logits_are_those_of_the_file_itself_and_taps_change_nothing(network: ToFe) -> None:
    images = small_images(3, 4).numpy()
    plain, tapped = (opened(export_tofe(network, KEEP, True, taps)).run(images) for taps in (False, True))
    assert plain.keys() == tapped.keys()
    assert all(np.allclose(plain[name], tapped[name], atol=1e-5) for name in plain)


def test_every_selection_broken_still_makes_a_document(network: ToFe, runner: OpenedOnnx) -> None:
    class Broken:
        backend, precision = "none", "fp32"

        def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
            right = runner.run(images)
            return {name: value * 0 if name.endswith("perm") else value for name, value in right.items()}

    document = compare(network, Broken(), FixedPath(KEEP, True), batches()).agreement().to_dict()
    assert not document["passed"]
    assert document["logits_same_selection"] is None
    assert json.loads(json.dumps(document, allow_nan=False)) == document


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_features_that_differ_fail_in_words_of_features(precision: str) -> None:
    comparison = Comparison(TOLERANCES[precision])
    features = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(0))
    comparison.features.add(features, features + 0.5 * TOLERANCES[precision].logits_max_abs)
    assert not comparison.failures
    deployed = features.clone()
    deployed[1, 7, 3] += 10 * TOLERANCES[precision].logits_max_abs * float(features.abs().max())
    comparison.features.add(features, deployed)
    (sentence,) = comparison.failures
    assert sentence.startswith("On the same tokens the features differ by")
    comparison.features.add(features, features * float("nan"))
    assert comparison.failures == ["The deployed model's features are not finite for image number 5."]
    assert comparison.agreement().to_dict()["features"]["max_abs"] is None


@pytest.mark.parametrize("outputs", [("features",), ("features", "logits")])
def test_exported_features_pass_and_planted_ones_do_not(outputs: tuple[str, ...]) -> None:
    network = small_tofe(dense_output=True, **TWO_STAGES)
    model = export_tofe(network, TWO_KEEP, False, taps=False, outputs=outputs)
    found = compare(network, opened(model), FixedPath(TWO_KEEP, False), batches())
    document = found.agreement().to_dict()
    assert not found.failures
    assert document["features"]["max_abs"] < 1e-4
    assert document["features"]["largest"] > 1
    assert (document["logits"] is None) == ("logits" not in outputs)
    # The last approximator is read by the features alone.
    name = "stages.1.approximator.up.weight.T"
    replace(model.graph, name, -weight(model.graph, name))
    found = compare(network, opened(model), FixedPath(TWO_KEEP, False), batches())
    stage, sentence = found.failures
    assert stage.startswith("On the same tokens stage 1 differs by")
    assert "Only frozen tokens differ: the approximator computes something else." in stage
    assert "the features differ" in sentence
    assert found.stages[1].overlap == 1.0


@pytest.mark.parametrize("approximator", ["discard", "fuse"])
def test_cls_attention_passes_and_another_token_is_found(approximator: str) -> None:
    network = small_tofe(selector="cls-attention", approximator=approximator, **TWO_STAGES)
    model = export_tofe(network, TWO_KEEP, True, taps=False)
    found = compare(network, opened(model), FixedPath(TWO_KEEP, True), batches())
    assert not found.failures
    assert found.score_scale == 0, "near-ties are judged by the size of the attention weights, whatever it is"
    name = "vit.blocks.1.attn.qkv.weight.T"
    replace(model.graph, name, weight(model.graph, name)[:, ::-1])
    found = compare(network, opened(model), FixedPath(TWO_KEEP, True), batches())
    assert found.stages[0].overlap == 1.0, "block 1 chooses in stage 1"
    assert found.failures[0].startswith("Stage 1 selected other tokens")


def test_labels_of_other_classes_give_no_accuracy(network: ToFe, runner: OpenedOnnx) -> None:
    found = compare(network, runner, FixedPath(KEEP, True), batches(), labelled=False)
    assert found.agreement().to_dict()["accuracy"] is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_never_pass(bad: float) -> None:
    found = LogitsDifference()
    deployed = torch.zeros(2, 3)
    deployed[1, 2] = bad
    found.add(torch.zeros(2, 3), deployed)
    assert found.max_abs == float("inf")
    comparison = Comparison(TOLERANCES["fp32"])
    comparison.logits.add(torch.zeros(2, 3), deployed)
    comparison.same_selection.add(torch.zeros(2, 3), deployed)
    assert comparison.failures


class Changed:
    """An exported model whose outputs are changed on their way out."""

    backend, precision = "changed", "fp32"

    def __init__(self, runner: OpenedOnnx, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> None:
        self.run = lambda images: change(runner.run(images))


def hidden(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value for name, value in outputs.items() if not name.startswith("stage")}


def test_features_of_hidden_stages_are_compared_on_each_models_own_tokens() -> None:
    network = small_tofe(dense_output=True, **TWO_STAGES)
    runner = opened(export_tofe(network, TWO_KEEP, False, taps=False, outputs=("features",)))
    found = compare(network, Changed(runner, hidden), FixedPath(TWO_KEEP, False), batches())
    assert not found.failures
    assert found.agreement().to_dict()["own_features"]["cosine_min"] > 0.9999
    assert found.agreement().to_dict()["features"] is None

    def upside_down(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"features": np.ascontiguousarray(outputs["features"][:, ::-1])}

    (sentence,) = compare(network, Changed(runner, upside_down), FixedPath(TWO_KEEP, False), batches()).failures
    assert sentence.startswith("The least cosine of the features is")


@pytest.mark.parametrize("missing", ["perm", "tokens"])
def test_a_stage_shown_by_half_is_hidden(network: ToFe, runner: OpenedOnnx, missing: str) -> None:
    some = Changed(runner, lambda outputs: {n: v for n, v in outputs.items() if n != f"stage1.{missing}"})
    found = compare(network, some, FixedPath(KEEP, True), batches())
    assert found.stages_hidden
    assert not found.failures


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda logits: {"logits": logits[:, :3]}, "It returns logits of shape [3, 3], where PyTorch's are [3, 5]."),
        (lambda logits: {"logits": logits[:, :1]}, "It returns logits of shape [3, 1]"),  # would broadcast
        (lambda logits: {"scores": logits}, "It returns neither logits nor features"),
    ],
    ids=["other classes", "one class", "no output"],
)
def test_outputs_of_other_shapes_are_a_finding(
    network: ToFe, runner: OpenedOnnx, change: Callable[[np.ndarray], dict[str, np.ndarray]], complaint: str
) -> None:
    found = compare(
        network, Changed(runner, lambda outputs: change(outputs["logits"])), FixedPath(KEEP, True), batches()
    )
    (sentence,) = found.failures
    assert sentence.startswith(complaint)
    assert found.agreement().to_dict()["passed"] is False
