"""What the processes of one run say: the first speaks for all, and another only of what it alone met.

torchrun starts the same command several times, and ends all processes as soon as one of them has ended.
"""

from __future__ import annotations

import time

from tofe_export.errors import StoppedError, TofeError
from tofe_export.training import torchrun

_OF_ONE = ("memory", "process-lost")
_STOPPED_S = 2.0
_REFUSED_S = 20.0


def is_first() -> bool:
    """Whether this process speaks for all."""
    return torchrun.rank() == 0


def leave_to_first(error: BaseException) -> bool:
    """Whether the first process says this error; it is given the time to say it.

    torchrun ends this process as soon as the first has refused the same. Where it does not, this one is alone with
    what it met, such as a folder that its machine lacks, and has to say it.
    """
    if is_first():
        return False
    if isinstance(error, (StoppedError, KeyboardInterrupt)) or type(error).__name__ == "Abort":
        time.sleep(_STOPPED_S)
        return True
    if (isinstance(error, TofeError) and error.code not in _OF_ONE) or hasattr(error, "format_message"):
        time.sleep(_REFUSED_S)
    return False
