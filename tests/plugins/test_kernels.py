"""The kernels' real source, run on the CPU, against the PyTorch operators: bit for bit, with and without sanitizers."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tofe_plugins.kernels import KERNELS, SCATTER_REARRANGE, TOKEN_PARTITION, Kernel
from torch import Tensor

from tests.plugins.emulation.emulated_kernel import EmulatedKernel, to_bytes
from tofe_export.model.operators import scatter_rearrange, token_partition

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
INTEGERS = {torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16}
NASTY = torch.tensor([0.0, -0.0, 1.0, 1.0, -1.0, 1e-45, -1e-45, math.inf, -math.inf, math.nan, 3.0e38])


class Pair:
    """Both operators, emulated."""

    def __init__(self, folder: Path, sanitizer: str | None = None) -> None:
        self.partition = EmulatedKernel(TOKEN_PARTITION, folder, sanitizer)
        self.rearrange = EmulatedKernel(SCATTER_REARRANGE, folder, sanitizer)

    def check(self, tokens: Tensor, scores: Tensor, keep: int, prefix: int, threads: int = 32, offset: int = 0) -> None:
        """Both kernels say what the PyTorch operators say, bit for bit."""
        batch, patches = scores.shape
        width, dtype = tokens.shape[2], tokens.dtype
        scalars = {"patches": patches, "keep": keep, "prefix": prefix, "row_bytes": width * dtype.itemsize}
        shapes = {
            "kept": ((batch, prefix + keep, width), dtype),
            "frozen": ((batch, patches - keep, width), dtype),
            "perm": ((batch, patches), torch.int32),
        }
        found = self.partition({"tokens": tokens, "scores": scores}, shapes, scalars, threads, offset)
        # As integers: PyTorch's own copies of float16 change the bits of a signalling NaN.
        whole = tokens.view(INTEGERS[dtype])
        expected = dict(zip(("kept", "frozen", "perm"), token_partition(whole, scores, keep, prefix), strict=True))
        for name, value in expected.items():
            assert to_bytes(found[name]) == to_bytes(value), name
        back = self.rearrange(found, {"tokens": (tuple(tokens.shape), dtype)}, scalars, threads, offset)
        assert to_bytes(back["tokens"]) == to_bytes(scatter_rearrange(*expected.values(), prefix)) == to_bytes(tokens)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("address"), "address")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("thread"), "thread")


def random_tokens(batch: int, rows: int, width: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Any bits at all: the kernels must never look inside a row."""
    generator = torch.Generator().manual_seed(seed)
    content = torch.randint(0, 256, (batch, rows, width * dtype.itemsize), dtype=torch.uint8, generator=generator)
    return content.view(dtype)


def random_scores(kind: str, batch: int, patches: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if kind == "tied":
        return torch.randint(0, 3, (batch, patches), generator=generator).float()
    if kind == "denormal":
        return torch.randint(-9, 9, (batch, patches), generator=generator) * torch.tensor(1e-45)
    if kind == "nasty":
        return NASTY[torch.randint(0, len(NASTY), (batch, patches), generator=generator)]
    return torch.randn(batch, patches, generator=generator)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_kernels_equal_the_operators(pair: Pair, data: st.DataObject) -> None:
    batch, patches, prefix = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 60)), data.draw(st.integers(0, 3))
    dtype, width = data.draw(st.sampled_from(DTYPES)), data.draw(st.integers(1, 20))
    kind = data.draw(st.sampled_from(["random", "tied", "denormal", "nasty"]))
    seed = data.draw(st.integers(0, 2**16))
    pair.check(
        random_tokens(batch, prefix + patches, width, dtype, seed),
        random_scores(kind, batch, patches, seed),
        keep=data.draw(st.integers(1, patches)),
        prefix=prefix,
        threads=data.draw(st.sampled_from([16, 32, 64])),
        offset=data.draw(st.sampled_from([0, 0, 4, 8])),
    )


@pytest.mark.parametrize(("patches", "batch"), [(1, 2), (7, 2), (49, 2), (196, 2), (197, 2), (784, 2), (4096, 1)])
def test_real_sizes(pair: Pair, patches: int, batch: int) -> None:
    keep = max(1, patches // 2)
    tokens = random_tokens(batch, patches + 1, 24, torch.float16)
    scores = random_scores("random", batch, patches)
    scores[:, ::2] = random_scores("nasty", batch, patches)[:, ::2]
    pair.check(tokens, scores, keep, prefix=1, threads=64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [192, 384, 385])
def test_rows_of_real_widths_with_the_threads_of_a_real_launch(pair: Pair, width: int, dtype: torch.dtype) -> None:
    pair.check(random_tokens(2, 51, width, dtype), random_scores("tied", 2, 49), 24, prefix=2, threads=256)


def test_rows_that_are_odd_numbers_of_bytes_still_move(pair: Pair) -> None:
    tokens = random_tokens(1, 10, 3, torch.uint8)
    scalars = {"patches": 9, "keep": 4, "prefix": 1, "row_bytes": 3}
    kept, frozen, perm = token_partition(tokens, random_scores("random", 1, 9), 4, 1)
    inputs = {"kept": kept, "frozen": frozen, "perm": perm}
    back = pair.rearrange(inputs, {"tokens": ((1, 10, 3), torch.uint8)}, scalars, threads=32)
    assert torch.equal(back["tokens"], tokens)


def test_a_ranking_that_is_no_permutation_writes_nowhere_else(strict: Pair) -> None:
    inputs = {
        "kept": random_tokens(1, 3, 4, torch.float32),
        "frozen": random_tokens(1, 2, 4, torch.float32),
        "perm": torch.tensor([[0, -1, 2**31 - 1, 3]], dtype=torch.int32),
    }
    scalars = {"patches": 4, "keep": 2, "prefix": 1, "row_bytes": 16}
    tokens = strict.rearrange(inputs, {"tokens": ((1, 5, 4), torch.float32)}, scalars, threads=32)["tokens"]
    assert to_bytes(tokens[:, 1]) == to_bytes(inputs["kept"][:, 1])
    assert to_bytes(tokens[:, 4]) == to_bytes(inputs["frozen"][:, 1])


@pytest.mark.parametrize("sanitized", ["strict", "watched"])
def test_no_race_and_no_overrun(request: pytest.FixtureRequest, sanitized: str) -> None:
    pair: Pair = request.getfixturevalue(sanitized)
    for patches, width, dtype, offset in [
        (1, 8, torch.float16, 0),
        (7, 5, torch.float16, 4),
        (197, 7, torch.bfloat16, 8),
        (1100, 4, torch.float32, 0),  # more than one tile of scores
    ]:
        tokens = random_tokens(2, patches + 1, width, dtype)
        pair.check(tokens, random_scores("nasty", 2, patches), max(1, patches // 3), prefix=1, offset=offset)


def test_sanitizers_would_see_a_missing_barrier_and_an_overrun(tmp_path: Path, strict: Pair) -> None:
    # The emulation itself is checked: without its barriers a race is reported, with rows one too long an overrun.
    source = TOKEN_PARTITION.source.read_text()
    broken = tmp_path / "cuda"
    broken.mkdir()
    for file in TOKEN_PARTITION.source.parent.iterdir():
        (broken / file.name).write_text(
            source.replace("__syncthreads();", "") if file.suffix == ".cu" else file.read_text()
        )
    tokens, scores = random_tokens(1, 101, 8, torch.float16), random_scores("random", 1, 100)
    scalars = {"patches": 100, "keep": 50, "prefix": 1, "row_bytes": 16}
    outputs = {
        "kept": ((1, 51, 8), torch.float16),
        "frozen": ((1, 50, 8), torch.float16),
        "perm": ((1, 100), torch.int32),
    }
    racy = EmulatedKernel(TOKEN_PARTITION, tmp_path, "thread", sources=broken)
    with pytest.raises(AssertionError, match="data race"):
        racy({"tokens": tokens, "scores": scores}, outputs, scalars, threads=32)
    with pytest.raises(AssertionError, match="heap-buffer-overflow"):
        strict.partition({"tokens": tokens, "scores": scores}, outputs, {**scalars, "row_bytes": 32}, threads=32)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.operator)
def test_the_declaration_has_the_arguments_in_the_order_that_everybody_uses(kernel: Kernel) -> None:
    declaration = kernel.source.read_text().partition(f"{kernel.entry}(")[2].partition(")")[0]
    names = [parameter.split()[-1].lstrip("*") for parameter in declaration.split(",")]
    assert tuple(names) == kernel.arguments
    for parameter, name in zip(declaration.split(","), names, strict=True):
        assert ("*" in parameter) == (name not in kernel.scalars)
        assert ("const" in parameter) == (name in kernel.inputs)
