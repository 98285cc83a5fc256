"""A value that is not finite is red, on either side, wherever it stands, and the sentence names side and image."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.helpers import SMALL_KEEP, small_images, small_tofe
from tofe_export.api.export import export
from tofe_export.checkpoints.checkpoint import Checkpoint, save
from tofe_export.data.images import Batch
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.documents.manifest import OnnxManifest
from tofe_export.errors import CheckFailedError
from tofe_export.extremes import largest, least, scaled
from tofe_export.graph.passes.taps import tap_name
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.outputs import best_class
from tofe_export.model.tofe import ToFe
from tofe_export.parity.batch_sizes import check_batch_sizes
from tofe_export.parity.comparison import Comparison
from tofe_export.parity.metrics import cosine_similarity
from tofe_export.parity.provenance import check_weights, weights_not_finite
from tofe_export.parity.side_by_side import compare
from tofe_export.parity.stages import StageDifference
from tofe_export.parity.threshold import against_threshold
from tofe_export.parity.tolerances import PRECISIONS, TOLERANCES
from tofe_export.runners.base import Array
from tofe_export.tuning.keep_counts import choose_keep

BAD = (math.nan, math.inf, -math.inf)
IMAGES, TOKENS, CHANNELS, CLASSES, KEPT = 3, 6, 4, 5, 3
NAMES = tuple(f"{name}.png" for name in "abc")
bad = st.sampled_from(BAD)
sides = st.sampled_from(["PyTorch's own", "The deployed model's"])
numbers = st.floats(-10, 10)


@given(st.lists(numbers | st.just(math.nan), min_size=1))
def test_extremes_are_nan_wherever_a_nan_stands(values: list[float]) -> None:
    # NumPy's maximum and minimum are another source of the same truth.
    assert np.array_equal(largest(*values), np.max(values), equal_nan=True)
    assert np.array_equal(least(*values), np.min(values), equal_nan=True)


@pytest.mark.parametrize(("size", "limit"), [(0.5, 0.1), (4.0, 0.4), (math.inf, 0.1), (math.nan, 0.1)])
def test_a_limit_never_grows_with_what_is_not_finite(size: float, limit: float) -> None:
    assert scaled(0.1, size) == pytest.approx(limit)


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def pair(values: Tensor, at: int, value: float, side: str) -> tuple[Tensor, Tensor]:
    """The reference and the deployed model's values: equal, but for one planted in one of them."""
    planted = values.clone()
    planted.view(-1)[at % values.numel()] = value
    return (planted, values) if side == "PyTorch's own" else (values, planted)


def in_batches(comparison: Comparison, what: str, at: int, value: float, side: str, first: bool) -> None:
    """Adds two batches of one kind of value, and plants in the first or the second."""
    stage = StageDifference(1)
    for planted, names in ((first, NAMES), (not first, ("d.png", "e.png", "f.png"))):
        if what in ("logits", "features"):
            values = random(IMAGES, CLASSES) if what == "logits" else random(IMAGES, TOKENS, CHANNELS)
            both = pair(values, at, value, side) if planted else (values, values)
            for difference in (
                (comparison.logits, comparison.same_selection) if what == "logits" else (comparison.features,)
            ):
                difference.add(*both, names)
            continue
        comparison.stages[1] = stage
        tokens, scores = random(IMAGES, TOKENS, CHANNELS), random(IMAGES, TOKENS)
        alike = (tokens, tokens), (scores, scores)
        if planted:
            changed = pair(tokens if what == "tokens" else scores, at, value, side)
            alike = (changed, alike[1]) if what == "tokens" else (alike[0], changed)
        masks = torch.ones(IMAGES, TOKENS, dtype=torch.bool)
        stage.add_selection(masks, masks)
        perm = scores.argsort(dim=1, descending=True)
        stage.add_scores(alike[1][0], perm, KEPT, alike[1][1], names)
        stage.add_tokens(*alike[0], ~masks, names)


@given(
    precision=st.sampled_from(PRECISIONS),
    what=st.sampled_from(["logits", "features", "tokens", "scores"]),
    at=st.integers(0, 1000),
    value=bad,
    side=sides,
    first=st.booleans(),
)
def test_one_value_that_is_not_finite_is_red(
    precision: str, what: str, at: int, value: float, side: str, first: bool
) -> None:
    comparison = Comparison(TOLERANCES[precision])
    in_batches(comparison, what, at, value, side, first)
    sizes = {"logits": CLASSES, "features": TOKENS * CHANNELS, "tokens": TOKENS * CHANNELS, "scores": TOKENS}
    image = ("abc" if first else "def")[at % (IMAGES * sizes[what]) // sizes[what]]
    called = {"tokens": "tokens of stage 1", "scores": "keep scores of stage 1"}.get(what, what)
    assert comparison.failures[0].startswith(f"{side} {called} are not finite for image {image}.png.")
    assert comparison.agreement().to_dict()["passed"] is False


@given(at=st.lists(st.integers(0, IMAGES * CLASSES - 1), min_size=1), value=bad, same=st.booleans(), other=numbers)
def test_both_sides_alike_and_not_finite_is_no_agreement(at: list[int], value: float, same: bool, other: float) -> None:
    comparison = Comparison(TOLERANCES["fp8"])
    reference = random(IMAGES, CLASSES)
    reference.view(-1)[at] = value
    deployed = reference.clone()
    if not same:
        deployed.view(-1)[at] = other
    comparison.logits.add(reference, deployed)
    comparison.own_features.add(reference.unsqueeze(1), deployed.unsqueeze(1))
    assert len(comparison.failures) >= 2
    assert comparison.failures[0].startswith("PyTorch's own features are not finite for image number")
    wrong = len({place // CLASSES for place in at})
    assert comparison.logits.top1_agreement == pytest.approx((IMAGES - wrong) / IMAGES), "no class of such logits"
    assert comparison.logits.max_abs == math.inf


def test_numbers_alone_stay_green() -> None:
    comparison = Comparison(TOLERANCES["fp32"])
    comparison.logits.add(random(IMAGES, CLASSES), random(IMAGES, CLASSES), NAMES)
    comparison.features.add(random(IMAGES, TOKENS, CHANNELS), random(IMAGES, TOKENS, CHANNELS), NAMES)
    assert not comparison.failures


def test_no_class_is_the_best_of_what_is_not_finite() -> None:
    logits = torch.tensor([[0.0, 1.0], [math.nan, 0.0], [0.0, -math.inf]])
    assert best_class(logits).tolist() == [1, -1, -1]


def test_rows_near_zero_have_a_direction() -> None:
    zero, tiny = torch.zeros(1, 4), torch.full((1, 4), 1e-20)
    assert cosine_similarity(zero, zero).tolist() == [1.0]
    assert cosine_similarity(tiny, tiny).tolist() == [1.0]
    assert cosine_similarity(zero, torch.ones(1, 4)).tolist() == [0.0]


class FromPyTorch:
    """A deployed model that is the network itself, with what it returns changed on the way out."""

    backend, precision = "torch", "fp32"

    def __init__(self, network: ToFe, change: Callable[[dict[str, Tensor]], None] = lambda outputs: None) -> None:
        self.network, self.change = network, change

    @torch.inference_mode()
    def run(self, images: Array) -> dict[str, Array]:
        out = self.network.forward_fixed(torch.from_numpy(images), FixedPath(SMALL_KEEP))
        found = {"logits": out.logits.clone()}
        for trace in out.stages:
            for tap in ("scores", "perm", "tokens"):
                found[tap_name(trace.index, tap)] = getattr(trace, tap).clone()
        self.change(found)
        return {name: value.numpy() for name, value in found.items()}


def batch(count: int = 3) -> Batch:
    return Batch(small_images(count), torch.zeros(count, dtype=torch.int64), NAMES[:count])


@pytest.mark.parametrize("value", BAD)
def test_a_network_that_is_not_finite_itself_is_red_and_named_so(value: float) -> None:
    network = small_tofe()
    with torch.no_grad():
        network.vit.blocks[1].mlp.fc2.bias[3] = value  # of stage 0
    found = compare(network, FromPyTorch(network), FixedPath(SMALL_KEEP, True), [batch()])
    assert found.failures[0].startswith("PyTorch's own tokens of stage 0 are not finite for image a.png.")
    assert found.agreement().to_dict()["stages"][0]["not_finite"]["tokens"] == {
        "reference": "a.png",
        "deployed": "a.png",
    }
    assert found.agreement().to_dict()["top1_agreement"] == 0


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("name", ["logits", "stage1.tokens", "stage2.scores"])
def test_an_output_that_is_not_finite_on_one_image_is_red(name: str, value: float) -> None:
    def change(outputs: dict[str, Tensor]) -> None:
        outputs[name][1].view(-1)[2] = value

    network = small_tofe()
    found = compare(network, FromPyTorch(network, change), FixedPath(SMALL_KEEP, True), [batch()], "fp8")
    sentence, *_ = found.failures
    assert sentence.startswith("The deployed model's ")
    assert "are not finite for image b.png." in sentence


def test_the_threshold_path_must_be_finite() -> None:
    network = small_tofe()
    assert against_threshold(network, SMALL_KEEP, [batch()], labelled=True).check is None
    with torch.no_grad():
        network.stages[1].selector.out.bias[0] = math.nan
    found = against_threshold(network, SMALL_KEEP, [batch()], labelled=True)
    assert found.check is not None
    assert found.check.passed is False
    assert found.check.message == "PyTorch's own keep scores on the threshold path are not finite for image a.png."
    assert found.document().stages[1].margin_median is None


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("where", [1, 3])
def test_what_is_not_finite_in_one_batch_size_alone_is_a_baked_in_batch(value: float, where: int) -> None:
    def change(outputs: dict[str, Tensor]) -> None:
        if len(outputs["logits"]) == where:
            outputs["logits"][0, 2] = value

    check = check_batch_sizes(FromPyTorch(small_tofe(), change), batch(), [1, 3], 0.9)
    assert (check.name, check.passed) == ("batch", False)
    assert check.message.startswith(f"Only in a batch of {where} the logits of an image are not finite")


def test_what_is_not_finite_in_every_batch_size_does_not_stop_the_comparison() -> None:
    def change(outputs: dict[str, Tensor]) -> None:
        outputs["logits"][0, 2] = math.nan

    check = check_batch_sizes(FromPyTorch(small_tofe(), change), batch(), [1, 3], 0.9)
    assert (check.name, check.passed) == ("finite", False)
    assert check.message == "The deployed model's logits are not finite for image a.png."


@pytest.mark.parametrize("value", BAD)
def test_a_checkpoint_with_such_a_weight_is_neither_exported_nor_green(value: float, tmp_path: Path) -> None:
    network = small_tofe()
    checkpoint = Checkpoint(network, (0.5, 0.3, 0.2), Preprocessing.of_backbone(network.vit), {}, "digits")
    right = OnnxManifest.model_construct(weights_sha256=checkpoint.weights_sha256)
    assert weights_not_finite(checkpoint) == ""
    with torch.no_grad():
        network.stages[2].selector.out.bias[1] = value  # no score is lost by a bias alone, yet nothing is right with it
    said = "The checkpoint's weight stages.2.selector.out.bias holds 1 value that is not finite."
    assert check_weights(right, checkpoint).message == said
    save(tmp_path / "ckpt.pth", checkpoint)
    with pytest.raises(CheckFailedError, match=re.escape(said)):
        export(tmp_path / "ckpt.pth", tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["ckpt.pth"]
    with pytest.raises(CheckFailedError, match=r"The keep scores of .* are not finite"):
        choose_keep(checkpoint, keep_from="digits", keep_samples=1)
