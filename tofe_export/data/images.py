"""Images from anywhere as batches of tensors: one protocol for sources, one loop for every use."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tofe_export.data.image_file import UnreadableImage
from tofe_export.data.image_log import ImageLog, LeftOut, counted
from tofe_export.errors import InputError

Transform = Callable[[Image.Image], Tensor]
"""PIL RGB image -> float32 [3, H, W]."""


@dataclass(frozen=True)
class Sample:
    """A decoded RGB image, its class index (None when unknown), and a name a user can find it by."""

    image: Image.Image
    label: int | None
    name: str


class ImageSource(Protocol):
    """A sequence of samples, random access."""

    @property
    def name(self) -> str:
        """What the user called it."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order; empty when the images have no labels."""

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """What lies beside the images and is not read."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """Raises UnreadableImage when the file cannot be taken for an image."""

    def at_epoch(self, epoch: int) -> Self:
        """The source as another training epoch sees it; sources of fixed images return themselves."""


@dataclass(frozen=True)
class Batch:
    """images float32 [B, 3, H, W]; labels int64 [B], None when any is unknown; names in the same order."""

    images: Tensor
    labels: Tensor | None
    names: tuple[str, ...]


def batches(
    source: ImageSource,
    transform: Transform,
    batch_size: int,
    limit: int | None = None,
    seed: int | None = None,
    log: ImageLog | None = None,
    workers: int = 0,
) -> Iterator[Batch]:
    """The source in batches; memory does not grow with the number of samples, but for their names in `log`.

    Args:
        source: where images come from.
        transform: a `Preprocessing`, or its `train_transform()`. Whatever random numbers it draws depend only on
            (`seed`, position), not on what ran before nor on `workers`.
        batch_size: images a batch; the last may be smaller, as may one with unreadable images.
        limit: at most `limit` images: spread evenly over the source, or drawn at random when `seed` is given.
        seed: shuffles; None keeps the source's order.
        log: told of every image that is read, and of every one that cannot be, which is then left out.
        workers: processes that decode; 0 decodes in this one.

    Raises:
        UnreadableImage: an image cannot be read and `log` is None.
        InputError: not one image could be read.
    """
    order = _order(len(source), limit, seed)
    loader = DataLoader(
        _Decoded(source, transform, order, seed or 0),
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=list,
        generator=torch.Generator().manual_seed(seed or 0),  # its own, so that the global state is left alone
    )
    if log is not None:
        for left_out in source.left_out:
            log.leave_out(left_out)
    unreadable: list[LeftOut] = []
    for loaded in loader:
        for error in (item for item in loaded if isinstance(item, UnreadableImage)):
            if log is None:
                raise error
            unreadable.append(error.left_out)
            log.leave_out(error.left_out)
        good = [item for item in loaded if not isinstance(item, UnreadableImage)]
        if good:
            batch = _collate(good)
            if log is not None:
                log.add_read(batch.names)
            yield batch
    if order and len(unreadable) == len(order):
        first = unreadable[0]
        raise InputError(
            f"None of the {len(order)} images of {source.name} can be read: {counted(unreadable)}.",
            f"Look at {first.name}" + (f": {first.detail}." if first.detail else "."),
            code="no-readable-image",
            images=len(order),
            source=source.name,
        )


_Loaded = tuple[Tensor, int | None, str]
"""As a `Sample`, transformed."""


class _Decoded(Dataset["_Loaded | UnreadableImage"]):
    """What a worker does: decode and transform one image, with random numbers of its own."""

    def __init__(self, source: ImageSource, transform: Transform, order: Sequence[int], seed: int) -> None:
        self.source, self.transform, self.order, self.seed = source, transform, order, seed

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> _Loaded | UnreadableImage:
        try:
            sample = self.source[self.order[position]]
        except UnreadableImage as error:
            return error
        if not getattr(self.transform, "draws_random_numbers", True):
            return self.transform(sample.image), sample.label, sample.name
        python, numpy = random.getstate(), np.random.get_state()
        with torch.random.fork_rng(devices=[]):
            mixed = int(np.random.SeedSequence((self.seed, position)).generate_state(1)[0])
            random.seed(mixed)
            np.random.seed(mixed)
            torch.manual_seed(mixed)
            try:
                return self.transform(sample.image), sample.label, sample.name
            finally:
                random.setstate(python)
                np.random.set_state(numpy)


def _order(length: int, limit: int | None, seed: int | None) -> list[int]:
    count = length if limit is None else min(limit, length)
    if seed is not None:
        drawn: list[int] = np.random.default_rng(seed).permutation(length)[:count].tolist()
        return drawn
    return [index * length // count for index in range(count)] if count else []


def _collate(items: Sequence[_Loaded]) -> Batch:
    images, labels, names = zip(*items, strict=True)
    return Batch(torch.stack(images), None if None in labels else torch.tensor(labels, dtype=torch.int64), names)
