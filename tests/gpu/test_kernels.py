"""The kernels on the GPU, from the PTX that goes into engines, against the PyTorch operators."""

import pytest
import torch

from benchmarks import kernel_launch as launch
from tofe_export.model.operators import scatter_rearrange, token_partition

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("patches", [1, 7, 49, 196, 197, 784, 4096])
@pytest.mark.parametrize("width", [7, 192, 384])
def test_bit_for_bit(patches: int, width: int, dtype: torch.dtype) -> None:
    generator = torch.Generator("cuda").manual_seed(patches)
    tokens = torch.randn(3, patches + 1, width, generator=generator, device="cuda").to(dtype)
    scores = torch.randint(-3, 4, (3, patches), generator=generator, device="cuda").float()
    scores[0, patches // 2] = float("nan")
    keep = max(1, patches // 2)
    expected = token_partition(tokens, scores, keep, 1)
    found = launch.token_partition(tokens, scores, keep, 1)
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(launch.scatter_rearrange(*found, 1), scatter_rearrange(*expected, 1))
    assert torch.equal(launch.scatter_rearrange(*found, 1), tokens)
