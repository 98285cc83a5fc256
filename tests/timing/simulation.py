"""Runs of `bench` without a clock: processes that differ, noise within them, and now and then a slow one."""

import numpy as np

from tofe_export.timing.blocks import Timings
from tofe_export.timing.intervals import Ratio, speedup

PROCESS_SD, BLOCK_SD, SLOW_CHANCE = 0.015, 0.03, 0.1


def run(
    random: np.random.Generator, truth: float, processes: int = 5, rounds: int = 5, process_sd: float = PROCESS_SD
) -> Ratio:
    """The measured speed-up of a model that really is `truth` times as fast as its dense backbone."""
    dense, own = [], []
    for _ in range(processes):
        place = random.normal(0, process_sd)  # where memory happens to lie, for better or worse
        if random.random() < SLOW_CHANCE:
            place -= 2 * process_sd  # the model alone is slow in this process
        machine = np.exp(random.normal(0, 0.2))  # the machine's speed is everyone's
        dense.append(_timings(random, 20.0 * machine, rounds))
        own.append(_timings(random, 20.0 * machine / truth * np.exp(-place), rounds))
    return speedup(dense, own)


def _timings(random: np.random.Generator, typical_ms: float, rounds: int) -> Timings:
    drift = typical_ms * np.exp(random.normal(0, BLOCK_SD, rounds))
    return Timings(tuple((float(block),) for block in drift))
