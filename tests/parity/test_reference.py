"""Two deployed forms of one model: judged by the rules, and in the words, of a comparison with PyTorch."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor

from tests.files.test_writing import MANIFEST
from tests.helpers import SMALL_KEEP, TWO_STAGES, exported_tofe, small_images, small_tofe
from tofe_export.artifacts.artifact import Artifact
from tofe_export.artifacts.opened import OpenedOnnx
from tofe_export.data.images import Batch
from tofe_export.documents.manifest import OnnxManifest
from tofe_export.engine.options import BatchProfile, BuildOptions
from tofe_export.graph.export import export_tofe
from tofe_export.graph.passes.taps import tap_name
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.tofe import ToFe
from tofe_export.parity import built_engine
from tofe_export.parity.comparison import Comparison
from tofe_export.parity.reference import OnnxReference
from tofe_export.parity.side_by_side import compare_forms
from tofe_export.parity.tolerances import TOLERANCES
from tofe_export.precision.half import to_half
from tofe_export.runners.base import Array
from tofe_export.runners.onnxruntime_runner import OnnxRuntimeRunner

KINDS: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({}, False),
    ({"selector": "attention", "approximator": "discard", **TWO_STAGES}, True),
    ({"selector": "cls-attention", "approximator": "fuse", **TWO_STAGES}, True),
]


def manifest(network: ToFe, rearranged: bool = True) -> OnnxManifest:
    keep = list(SMALL_KEEP[: len(network.stages)])
    config = {**MANIFEST["config"], "selector": network.config.selector, "approximator": network.config.approximator}
    stages = [[blocks.start, blocks.stop] for blocks in network.stage_blocks]
    rearrange = "plugin" if rearranged else "elide"
    changed = {"config": config, "stages": stages, "keep": keep, "tokens": 16, "rearrange": rearrange}
    return OnnxManifest.model_validate({**MANIFEST, **changed})


def content(model: ir.Model) -> bytes:
    return bytes(ir.to_proto(model).SerializeToString())


def reference(folder: Path, network: ToFe | None = None, rearranged: bool = True) -> OnnxReference:
    network = network or small_tofe()
    keep = SMALL_KEEP[: len(network.stages)]
    (folder / "model.onnx").write_bytes(content(export_tofe(network, keep, rearranged, taps=False)))
    return OnnxReference(Artifact(folder / "model.onnx", manifest(network, rearranged)))


def batch(count: int = 4, labels: list[int] | None = None) -> Batch:
    given = None if labels is None else torch.tensor(labels)
    return Batch(small_images(count), given, tuple(f"{place}.png" for place in range(count)))


@pytest.mark.parametrize(
    ("kind", "rearranged"), KINDS, ids=["plugin", "elide", "attention-discard", "cls-attention-fuse"]
)
def test_an_onnx_file_is_forced_as_pytorch_is(kind: dict[str, Any], rearranged: bool, tmp_path: Path) -> None:
    network, images = small_tofe(**kind), small_images(3)
    forced = reference(tmp_path, network, rearranged)
    keep = SMALL_KEEP[: len(network.stages)]
    own = network.forward_fixed(images, FixedPath(keep, rearranged))
    chosen = {trace.index: trace.perm.flip(1) for trace in own.stages}  # whom it likes least
    for given in ({}, chosen):
        ours = network.forward_fixed(images, FixedPath(keep, rearranged, selection=given))
        theirs = forced.run(images, given, features=False)
        assert torch.allclose(theirs.logits, ours.logits, atol=1e-4)
        for mine, other in zip(ours.stages, theirs.stages, strict=True):
            assert torch.equal(mine.perm, other.perm)
            assert torch.allclose(mine.scores, other.scores, atol=1e-4)
            assert torch.allclose(mine.tokens, other.tokens, atol=1e-4)


class Changed:
    """float32 itself, with what it returns changed on the way out."""

    backend, precision = "changed", "int8"

    def __init__(self, folder: Path, change: Any = lambda outputs: None) -> None:
        self.runner, self.change = OpenedOnnx(folder / "model.onnx"), change

    def run(self, images: Array) -> dict[str, Array]:
        outputs = {name: np.array(value) for name, value in self.runner.run(images).items()}
        self.change(outputs)
        return outputs


def judged(folder: Path, change: Any, labels: list[int] | None = None, count: int = 4, **limits: float) -> Comparison:
    float32 = reference(folder)
    (found,) = compare_forms(
        float32,
        {"int8": Changed(folder, change)},
        [batch(count, labels)],
        labels is not None,
        {"int8": replace(TOLERANCES["int8"], **limits)},  # type: ignore[arg-type]
    )
    return found


def test_float32_agrees_with_itself_and_fp16_does_so_within_its_limits(tmp_path: Path) -> None:
    float32, half = reference(tmp_path), exported_tofe()
    to_half(half, "fp16")
    forms = {"fp32": OpenedOnnx(tmp_path / "model.onnx"), "fp16": OpenedOnnx(content(half), precision="fp16")}
    same, coarse = compare_forms(float32, forms, [batch(), batch()], labelled=False)
    assert same.failures == coarse.failures == []
    assert same.logits.max_abs < 1e-4 < coarse.logits.max_abs
    assert same.samples == coarse.samples == 8
    assert same.agreement().accuracy is None
    assert same.agreement().least_overlap == 1


def test_the_order_of_kept_tokens_is_no_difference(tmp_path: Path) -> None:
    def change(outputs: dict[str, Array]) -> None:
        perm = outputs["stage0.perm"]
        perm[:, [0, 1]] = perm[:, [1, 0]]

    found = judged(tmp_path, change)
    assert found.failures == []
    assert found.agreement().least_overlap == 1


def test_other_tokens_and_other_numbers_are_told_in_the_words_of_verify(tmp_path: Path) -> None:
    def swap(outputs: dict[str, Array]) -> None:
        perm = outputs["stage1.perm"]
        perm[:, [0, 15]] = perm[:, [15, 0]]

    found = judged(tmp_path, swap)
    assert found.failures[0].startswith("Stage 1 selected other tokens: overlap 0.8000, a kept token's score is")

    def shift(outputs: dict[str, Array]) -> None:
        outputs["logits"] += 10

    told = judged(tmp_path, shift).failures[0]
    assert told.startswith("On the same tokens the logits differ by 1.00e+01, more than")


def test_one_lost_image_of_fifty_passes_and_a_second_one_does_not(tmp_path: Path) -> None:
    labels = reference(tmp_path).run(small_images(50), {}, features=False).logits.argmax(1).tolist()

    def lose(count: int) -> Any:
        def change(outputs: dict[str, Array]) -> None:
            # The two best logits lie so close that a hair exchanges them.
            ordered = np.sort(outputs["logits"][:count], axis=1)
            second = outputs["logits"][:count].argsort(axis=1)[:, -2]
            outputs["logits"][np.arange(count), second] = ordered[:, -1] + 1e-3

        return change

    loose = {"logits_max_abs": 1e9, "kl_mean": 1e9}
    assert judged(tmp_path, lose(1), labels, 50, **loose).failures == []
    (said,) = judged(tmp_path, lose(2), labels, 50, **loose).failures
    assert said == "It loses 4.00% of accuracy; 1% is allowed."
    assert judged(tmp_path, lose(2), labels, 50, **loose, accuracy_lost=0.05).failures == []


@pytest.mark.parametrize("gap", [1e-3, 3.0])
def test_a_single_flip_passes_as_a_near_tie_alone(gap: float, tmp_path: Path) -> None:
    """One of eight kept tokens is another: an overlap of 0.875, where INT8 may have 0.95."""
    float32 = reference(tmp_path)

    class Tied:
        """The reference, with scores of which the 8th and the 9th lie `gap` apart, as far as anybody sees."""

        name, path, layout = float32.name, float32.path, float32.layout
        prefix, score_scale = float32.prefix, float32.score_scale

        def run(self, images: Tensor, chosen: dict[int, Tensor], features: bool) -> Any:
            found = float32.run(images, chosen, features)
            first = found.stages[0]
            rank = float32.run(images, {}, features).stages[0].perm.long()
            steps = torch.tensor([10.0] * 8 + [10.0 - gap] + [0.0] * 7).expand(len(images), -1)
            scores = torch.zeros_like(first.scores).scatter(1, rank, steps)
            return replace(found, stages=[replace(first, scores=scores), *found.stages[1:]])

    class Flipped(Changed):
        def run(self, images: Array) -> dict[str, Array]:
            perm = float32.run(torch.from_numpy(images), {}, False).stages[0].perm.clone()
            perm[0, [7, 8]] = perm[0, [8, 7]]
            out = float32.run(torch.from_numpy(images), {0: perm, **_others(float32, images)}, False)
            found = {"logits": out.logits.numpy()}
            for trace in out.stages:
                found |= {tap_name(trace.index, tap): getattr(trace, tap).numpy() for tap in ("perm", "tokens")}
            return found

    limits = {"int8": replace(TOLERANCES["int8"], kl_mean=1e9, top1_agreement=0.0)}
    (found,) = compare_forms(Tied(), {"int8": Flipped(tmp_path)}, [batch(1)], False, limits)
    assert found.stages[0].overlap == pytest.approx(7 / 8)
    if gap > 1:
        assert found.failures[0].startswith("Stage 0 selected other tokens: overlap 0.8750")
    else:
        assert found.failures == []


def _others(float32: OnnxReference, images: Array) -> dict[int, Tensor]:
    stages = float32.run(torch.from_numpy(images), {}, False).stages[1:]
    return {trace.index: trace.perm for trace in stages}


def test_labels_of_other_classes_do_not_count(tmp_path: Path) -> None:
    assert judged(tmp_path, lambda outputs: None).agreement().to_dict()["accuracy"] is None


@pytest.mark.parametrize("tapped", [True, False])
def test_an_engine_is_judged_by_the_same_rules(tapped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any runner stands for the engine, which needs a GPU."""
    path = tmp_path / "model.onnx"
    path.write_bytes(content(exported_tofe()))
    source = Artifact(path, manifest(small_tofe()))
    monkeypatch.setattr(built_engine, "batches", lambda *a, **k: iter([batch(16)]))
    options = BuildOptions(precision="fp16", batch=BatchProfile(1, 8, 16))
    engine = OpenedOnnx(path) if tapped else OnnxRuntimeRunner(path)
    found = built_engine.compare_engine(engine, options, source, {})
    assert found.failures == []
    assert (found.samples, found.stages_hidden) == (9, not tapped)
    assert found.tolerance.top1_agreement == 0

    class Garbage:
        backend, precision = "engine", "fp16"

        def run(self, images: Array) -> dict[str, Array]:
            return {"logits": np.ascontiguousarray(engine.run(images)["logits"][:, ::-1])}

    wrong = built_engine.compare_engine(Garbage(), options, source, {})
    assert wrong.failures[0].startswith("The least cosine of the logits is")
    strict = built_engine.compare_engine(engine, options, source, {"fp16.top1_agreement": 1.0})
    assert strict.tolerance.top1_agreement == 1.0
