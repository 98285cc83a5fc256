"""Hot blocks, without a clock: what is called when, and what of it is measured."""

import pytest

from tofe_export.timing import blocks
from tofe_export.timing.blocks import LEAST_CALLS, WARM_UP_CALLS, Timings, measure


def clock(monkeypatch: pytest.MonkeyPatch, *times: float) -> None:
    """Calls take these milliseconds, the last one for ever."""
    left = list(times)

    def timed(subject: blocks.Run) -> float:
        subject()
        return left.pop(0) if len(left) > 1 else left[0]

    monkeypatch.setattr(blocks, "time_ms", timed)


@pytest.mark.parametrize(("once_ms", "calls"), [(0.001, 1000), (0.6, 17), (2.0, 5), (10.0, 5), (500.0, 5)])
def test_a_block_lasts_ten_milliseconds_or_five_calls(
    once_ms: float, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock(monkeypatch, once_ms)
    called: list[int] = []
    (timings,) = measure([lambda: called.append(0)], rounds=1)
    assert len(timings.calls_ms) == calls >= LEAST_CALLS
    assert len(called) == calls + WARM_UP_CALLS


def test_every_subject_runs_one_whole_block_per_round_in_an_order_that_the_seed_decides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock(monkeypatch, 4.0)

    def order(seed: int) -> list[int]:
        called: list[int] = []
        measure([lambda number=number: called.append(number) for number in range(3)], rounds=8, seed=(seed,))
        size = WARM_UP_CALLS + LEAST_CALLS
        every = [called[start : start + size] for start in range(0, len(called), size)]
        assert all(len(set(block)) == 1 for block in every), "nobody else is called within a block"
        firsts = [block[0] for block in every]
        assert all(sorted(firsts[start : start + 3]) == [0, 1, 2] for start in range(0, 24, 3))
        return firsts

    assert order(0) == order(0)
    assert order(0) != order(1)
    assert len({tuple(order(0)[start : start + 3]) for start in range(0, 24, 3)}) > 2


def test_a_round_is_the_median_of_its_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, *(1.0, 9.0, 2.0, 3.0, 50.0), *(4.0, 5.0, 6.0, 90.0, 7.0))
    (timings,) = measure([lambda: None], rounds=2)
    assert timings.medians_ms.tolist() == [3.0, 6.0]
    assert timings.percentile_ms(50) == 5.5
    assert timings.percentile_ms(100) == 90.0


def test_it_says_after_each_round() -> None:
    rounds: list[int] = []
    measure([lambda: None, lambda: None], 3, on_round=lambda: rounds.append(0))
    assert len(rounds) == 3


def test_rounds_may_have_different_numbers_of_calls() -> None:
    timings = Timings(((1.0, 2.0, 3.0), (4.0,)))
    assert timings.medians_ms.tolist() == [2.0, 4.0]
    assert timings.calls_ms.tolist() == [1.0, 2.0, 3.0, 4.0]
