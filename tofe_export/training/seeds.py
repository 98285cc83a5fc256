"""Seeds of everything random in a run: one for each epoch, one for each step of it.

They follow from where the run stands, so a resumed run needs no saved state of any generator.
"""

from __future__ import annotations

import numpy as np

from tofe_export.documents.history import DENSE
from tofe_export.documents.history import Phase as Name


def seed_of(run: int, phase: Name, epoch: int, step: int | None = None) -> int:
    """Of an epoch, below 2**32, or of a step in it, below 2**63.

    Args:
        run: the seed of the whole run.
        phase: which one.
        epoch, step: from 0.
    """
    place = (run, 0 if phase == DENSE else 1, epoch)
    if step is None:
        return int(np.random.SeedSequence(place).generate_state(1)[0])
    return int(np.random.SeedSequence((*place, step)).generate_state(1, np.uint64)[0] >> 1)
