"""The operators against an independent reference, in PyTorch and as ONNX function bodies, bit for bit."""

import functools
import math

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch import Tensor

from tofe_export.graph.functions import operator_functions
from tofe_export.graph.passes.ties import trust_ties
from tofe_export.model.operators import DOMAIN, rank_tokens, scatter_rearrange, split_by, token_partition

NASTY = [0.0, -0.0, 1.0, -1.0, 1.0, 1e-45, -1e-45, math.inf, -math.inf, math.nan, 3.0e38]
LOWEST = torch.finfo(torch.float32).min


def reference_perm(scores: np.ndarray) -> np.ndarray:
    """Higher first, lower index among equals, NaN as -inf: sorted by Python's own comparison."""
    rows = []
    for row in scores:
        keys = [(-math.inf if math.isnan(value) else float(value)) for value in row]
        rows.append(sorted(range(len(keys)), key=lambda index: (-keys[index], index)))
    return np.array(rows, dtype=np.int32).reshape(scores.shape)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor, int, int]:
    batch, count = draw(st.integers(1, 3)), draw(st.integers(1, 20))
    prefix, width = draw(st.integers(0, 3)), draw(st.integers(1, 5))
    values = st.one_of(st.sampled_from(NASTY), st.floats(width=32))
    scores = draw(st.lists(st.lists(values, min_size=count, max_size=count), min_size=batch, max_size=batch))
    tokens = torch.arange(batch * (prefix + count) * width, dtype=torch.float32).view(batch, prefix + count, width)
    return tokens, torch.tensor(scores, dtype=torch.float32), draw(st.integers(0, count)), prefix


@given(cases(), st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
def test_partition_is_the_reference_and_rearrange_undoes_it(
    case: tuple[Tensor, Tensor, int, int], dtype: torch.dtype
) -> None:
    tokens, scores, keep, prefix = case
    tokens = (tokens % 251).to(dtype)
    kept, frozen, perm = token_partition(tokens, scores, keep, prefix)
    expected = reference_perm(scores.numpy())
    assert perm.dtype == torch.int32
    assert np.array_equal(perm.numpy(), expected)
    for image in range(tokens.shape[0]):
        ranked = [tokens[image, prefix + index] for index in expected[image]]
        assert torch.equal(kept[image], torch.cat([tokens[image, :prefix], torch.stack(ranked)[:keep]]))
        assert torch.equal(frozen[image], torch.stack(ranked)[keep:])
    assert torch.equal(scatter_rearrange(kept, frozen, perm, prefix), tokens)
    again = split_by(tokens, perm, keep, prefix)
    assert torch.equal(again[0], kept)
    assert torch.equal(again[1], frozen)


@functools.cache
def session(operator: str, keep: int, prefix: int, trusting: bool = False) -> ort.InferenceSession:
    """The function body alone in a model; `trusting`: as it is optimized for ONNX Runtime."""
    attributes = {"keep": keep, "prefix": prefix} if operator == "TokenPartition" else {"prefix": prefix}
    value = functools.partial(onnx.helper.make_tensor_value_info, shape=[None, None, None])
    tensor, flat = onnx.TensorProto.FLOAT, [None, None]
    perm = onnx.helper.make_tensor_value_info("perm", onnx.TensorProto.INT32, flat)
    kept, frozen, tokens = (value(name, tensor) for name in ("kept", "frozen", "tokens"))
    scores = onnx.helper.make_tensor_value_info("scores", tensor, flat)
    inputs, outputs = ([tokens, scores], [kept, frozen, perm]) if keep >= 0 else ([kept, frozen, perm], [tokens])
    node = onnx.helper.make_node(
        operator, [i.name for i in inputs], [o.name for o in outputs], domain=DOMAIN,
        plugin_namespace="tofe", plugin_version="1", **attributes,
    )  # fmt: skip
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "one", inputs, outputs),
        functions=[ir.serde.serialize_function(function) for function in operator_functions()],
        opset_imports=[onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid(DOMAIN, 1)],
        ir_version=10,
    )
    if trusting:
        rewritten = ir.from_proto(model)
        assert trust_ties(rewritten) == 1
        model = ir.to_proto(rewritten)
        assert [node.op_type for node in model.functions[0].node].count("TopK") == 1
    onnx.checker.check_model(model)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def as_the_bodies_rank(scores: Tensor) -> Tensor:
    """Their one exception: beside the lowest finite number NaN and -infinity are its equals."""
    return scores.nan_to_num(LOWEST, math.inf, LOWEST) if (scores == LOWEST).any() else scores


def test_function_bodies_take_the_lowest_number_for_infinity() -> None:
    scores = torch.tensor([[LOWEST, -math.inf, math.nan, LOWEST, 0.0, -math.inf]])
    tokens = torch.arange(6.0).view(1, 6, 1)
    found = session("TokenPartition", 2, 0).run(None, {"tokens": tokens.numpy(), "scores": scores.numpy()})
    assert found[2].tolist() == [[4, 0, 1, 2, 3, 5]]
    assert rank_tokens(scores).tolist() == [[4, 0, 3, 1, 2, 5]]


@settings(max_examples=80)
@given(cases(), st.booleans())
def test_function_bodies_equal_the_operators(case: tuple[Tensor, Tensor, int, int], trusting: bool) -> None:
    tokens, scores, keep, prefix = case
    expected = token_partition(tokens, as_the_bodies_rank(scores), keep, prefix)
    body = session("TokenPartition", keep, prefix, trusting)
    found = body.run(None, {"tokens": tokens.numpy(), "scores": scores.numpy()})
    for mine, theirs in zip(expected, found, strict=True):
        assert np.array_equal(mine.numpy(), theirs)
    feed = dict(zip(("kept", "frozen", "perm"), found, strict=True))
    (back,) = session("ScatterRearrange", -1, prefix).run(None, feed)
    assert np.array_equal(back, tokens.numpy())


def test_half_precision_scores_rank_as_their_float32_values() -> None:
    scores = torch.tensor([[0.5, 0.25, 0.5, float("nan")]], dtype=torch.float16)
    assert rank_tokens(scores).tolist() == [[0, 2, 1, 3]]


@pytest.mark.parametrize("count", [1, 7, 49, 196, 784])
def test_perm_is_a_permutation_at_real_sizes(count: int) -> None:
    scores = torch.randint(0, 3, (2, count)).float()
    assert torch.equal(rank_tokens(scores).sort(1).values, torch.arange(count, dtype=torch.int32).expand(2, -1))


def test_signatures_are_checked_in_tests() -> None:
    with pytest.raises(TypeCheckError, match="scores"):
        token_partition(torch.zeros(2, 5, 3), torch.zeros(1, 4), 2, 1)  # another batch
