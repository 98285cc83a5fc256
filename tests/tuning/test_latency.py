"""A network whose stages cost what the model says is recovered from its probes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tofe_export.documents.tuning import Probe, Step
from tofe_export.tuning.latency import LatencyModel, fit, probe_counts

STEPS = tuple(0.2 + 0.1 * -(-count // 6) for count in range(1, 65))
STAIRCASE = tuple(Step(count=count, ms=ms, efficient=False) for count, ms in enumerate(STEPS, start=1))


@given(st.floats(0.5, 20), st.lists(st.floats(0.1, 9), min_size=3, max_size=3))
def test_a_true_model_is_found_again(constant: float, slopes: list[float]) -> None:
    truth = LatencyModel(constant, tuple(slopes), STEPS)
    probes = [Probe(keep=keep, ms=truth.predict_ms(keep)) for keep in probe_counts((32, 16, 8), 64, falling=False)]
    found = fit(probes, STAIRCASE)
    for keep in ((64, 64, 64), (1, 1, 1), (40, 3, 21)):
        assert found.predict_ms(keep) == pytest.approx(truth.predict_ms(keep), rel=1e-6)


def test_more_tokens_are_never_predicted_to_be_faster() -> None:
    """Noise may say otherwise, as here."""
    probes = [Probe(keep=keep, ms=10 - keep[0] / 100) for keep in probe_counts((32, 16, 8), 64, falling=False)]
    found = fit(probes, STAIRCASE)
    assert found.predict_ms((64, 16, 8)) >= found.predict_ms((1, 16, 8))


def test_each_stage_is_probed_with_few_and_with_many_tokens() -> None:
    assert probe_counts((32, 16), 64, falling=False) == [(32, 16), (10, 16), (51, 16), (32, 10), (32, 51)]


@given(st.lists(st.integers(1, 64), min_size=1, max_size=4).map(lambda counts: sorted(counts, reverse=True)))
def test_where_tokens_are_discarded_no_probe_rises(base: list[int]) -> None:
    probes = probe_counts(base, 64, falling=True)
    assert probes[0] == tuple(base)
    for probe in probes:
        assert list(probe) == sorted(probe, reverse=True)
        assert all(1 <= count <= 64 for count in probe)
