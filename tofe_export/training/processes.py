"""The processes of one run: one by itself, or several that torchrun started, on one machine or many.

They make every step together, each with its share of the images, and end with the same weights.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from tofe_export.errors import MissingError, StoppedError, TofeError
from tofe_export.training import torchrun

Part = TypeVar("Part")
_PATIENCE = timedelta(minutes=30)  # the slowest process may read many more images than the others
_meetings = itertools.count()  # every process of torchrun makes the same runs


@dataclass(frozen=True)
class Processes:
    """This process among those of a run.

    Attributes:
        rank: its number.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, element by element; without gradients."""
        values = values.detach()
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def sums(self, values: Sequence[float], device: torch.device) -> list[float]:
        """Of plain numbers over all processes, one by one, in float64; they are exchanged by `device`."""
        if self.size == 1:  # not every device has float64
            return list(values)
        return list(self.total(torch.tensor(values, dtype=torch.float64, device=device)).tolist())

    def gathered(self, value: Any) -> list[Any]:
        """What every process has, in order of their numbers: plain Python values."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def shared(self, work: Callable[[], Part]) -> list[Part]:
        """What every process makes, in order of their numbers.

        Raises:
            TofeError: that of the first process whose `work` raises one; every process raises it.
        """
        made: Part | TofeError
        try:
            made = work()
        except TofeError as error:
            made = error
        every: list[Part | TofeError] = self.gathered(made)
        for one in every:
            if isinstance(one, TofeError):
                raise one
        return [one for one in every if not isinstance(one, TofeError)]


@contextlib.contextmanager
def joined(device: torch.device, again: str = "start all of them again with `resume`") -> Iterator[Processes]:
    """Joins the other processes where torchrun started several; alone otherwise.

    Args:
        device: that they compute on.
        again: what to do where another one is lost.

    Raises:
        MissingError: another process ended, or cannot be reached.
    """
    if not torchrun.started():
        yield Processes()
        return
    already = dist.is_initialized()
    with _lost_as_a_sentence(again):
        on_gpu = device.type == "cuda"
        if on_gpu:  # what is gathered goes over the current device, which else is the first GPU for every process
            torch.cuda.set_device(device)
        if not already:
            _meet(device if on_gpu else None)
        try:
            yield Processes(dist.get_rank(), dist.get_world_size())
        except StoppedError:  # all of them, after the same step
            _leave(already)
            raise
    _leave(already)


def _meet(gpu: torch.device | None) -> None:
    """Each time under another name: torchrun's store outlives a run, and in the next one a process that is early would
    find the addresses of the one before."""
    store, rank, size = next(rendezvous("env://", timeout=_PATIENCE))
    own = PrefixStore(f"run-{next(_meetings)}", store)
    backend = "gloo" if gpu is None else "nccl"
    dist.init_process_group(backend, timeout=_PATIENCE, store=own, rank=rank, world_size=size, device_id=gpu)


def _leave(already: bool) -> None:
    if not already:
        dist.destroy_process_group()


@contextlib.contextmanager
def _lost_as_a_sentence(again: str) -> Iterator[None]:
    try:
        yield
    except dist.DistError as error:
        raise _lost(again) from error
    except RuntimeError as error:
        if not any(sign in str(error) for sign in ("gloo", "NCCL", "Connection closed", "Connection reset")):
            raise
        raise _lost(again) from error


def _lost(again: str) -> MissingError:
    return MissingError(
        "Another process of this run has ended or cannot be reached, so this one stops.",
        f"Look at what it said, then {again}.",
        code="process-lost",
    )
