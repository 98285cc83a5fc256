"""Every file is taken rightly or refused in words; a sample in each run, all of them in `make slow`."""

from pathlib import Path

import pytest

from tests.formats.case import Case, judge
from tests.formats.cases import all_cases
from tests.helpers import sampled

CASES = all_cases()


def test_there_are_enough() -> None:
    assert len(CASES) >= 150
    assert len({(case.group, case.name) for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", sampled(CASES, every=4), ids=lambda case: case.name)
@pytest.mark.filterwarnings("ignore")  # timm's and PyTorch's, about the odd files that are made here
def test_a_file(case: Case, tmp_path: Path) -> None:
    outcome = judge(case, tmp_path)
    assert outcome.fits(case), f"{outcome.verdict}: {outcome.sentence}"
