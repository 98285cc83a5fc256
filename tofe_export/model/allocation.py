"""Networks that a file describes are built only as large as the file can fill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from tofe_export.errors import InputError

_MAKERS = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}
_SPARE = 8_000_000  # numbers: small networks say best themselves what does not fit


class AtMost(TorchFunctionMode):
    """While this is entered, modules may allocate a limited number of numbers; what exceeds it is never allocated.

    A file of a few bytes may say that its network has a million blocks, or a billion classes.

    Args:
        held: numbers that the file holds; four times as many, and some millions, may be allocated.
        error: raised beyond that.
    """

    def __init__(self, held: int, error: InputError) -> None:
        super().__init__()
        self._left, self._error = 4 * held + _SPARE, error

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[Any], args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """See `TorchFunctionMode`: stands before every function of torch."""
        kwargs = kwargs or {}
        if func in _MAKERS:
            self._left -= func(*args, **{**kwargs, "device": "meta"}).numel()
            if self._left < 0:
                raise self._error
        return func(*args, **kwargs)
