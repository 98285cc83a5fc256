"""Random configurations through the whole chain: those of every_run.jsonl, in `make slow` the 200 fixed ones; or new
ones (--examples 2000)."""

from __future__ import annotations

import pytest
from hypothesis import Phase

from tests.chain.check import check
from tests.chain.configurations import SHARES, every_run, explore, fixed


@pytest.mark.parametrize("share", SHARES)
def test_exported_file_says_what_pytorch_says(share: str, examples: int | None) -> None:
    if examples is not None:
        explore(share, check, examples, (Phase.generate, Phase.shrink), new=True)
        return
    for configuration in every_run(share):
        check(configuration)


@pytest.mark.slow
@pytest.mark.parametrize("share", SHARES)
def test_the_other_fixed_ones(share: str) -> None:
    checked = {repr(configuration) for configuration in every_run(share)}
    for configuration in fixed(share):
        if repr(configuration) not in checked:
            check(configuration)
