"""Images from anywhere as batches of tensors: one protocol for sources, one loop for every use."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
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
    part: tuple[int, int] = (0, 1),
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
        part: (index, parts): only every `parts`-th image, from that index on; several processes share a source so. Of
            a part without a readable image nothing is yielded.

    Raises:
        UnreadableImage: an image cannot be read and `log` is None.
        InputError: not one image could be read.
    """
    order = _order(len(source), limit, seed)
    own = range(part[0], len(order), part[1])
    chunks = [own[start : start + batch_size] for start in range(0, len(own), batch_size)]
    loader = _loader(_Decoded(source, transform, order, seed or 0), chunks, workers)
    _log_beside(source, log)
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
    if own and part[1] == 1 and len(unreadable) == len(own):  # of several processes none knows
        raise _none_readable(source, unreadable)


def pixels_of(image: Image.Image) -> Tensor:
    """The image as it is, uint8 [H, W, 3] in RGB; a transform for `batches` of one."""
    return torch.from_numpy(np.array(image.convert("RGB")))


def training_batches(
    source: ImageSource,
    transform: Transform,
    chunks: Sequence[Sequence[int]],
    seed: int,
    repeats: int = 1,
    log: ImageLog | None = None,
    workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Batches of an epoch that are exactly as large as their chunks: an image stands in for one that cannot be read.

    So every process makes the same steps, with the same share of each, whatever lies in the files.

    Args:
        source: where images come from; they have labels.
        transform: see `batches`.
        chunks: for each batch, the positions of its images in the epoch's order, see `shuffled`; past its end it
            begins again.
        seed: of the order, and with a position of what is drawn for its image.
        repeats: see `shuffled`.
        log, workers: see `batches`.
        pin_memory: copies batches where a GPU takes them from without waiting.

    Raises:
        InputError: not one image can be read.
    """
    decoded = _Decoded(source, transform, shuffled(len(source), seed, repeats), seed)
    chunks = [[position % len(decoded) for position in chunk] for chunk in chunks]
    _log_beside(source, log)
    for chunk, loaded in zip(chunks, _loader(decoded, chunks, workers, pin_memory), strict=True):
        good = []
        for item in loaded:
            if not isinstance(item, UnreadableImage):
                good.append(item)
            elif log is not None:
                log.leave_out(item.left_out)
        if not good:
            good = [decoded.next_readable(chunk[-1])]
        batch = _collate([good[place % len(good)] for place in range(len(chunk))])
        if log is not None:
            log.add_read(batch.names)
        yield batch


def shuffled(length: int, seed: int, repeats: int = 1) -> list[int]:
    """The order of `length` images in an epoch.

    With `repeats` an epoch shows fewer images, in proportion, each of them `repeats` times in a row and augmented anew
    each time (Hoffer et al., arXiv 1901.09335).
    """
    drawn = np.random.default_rng(seed).permutation(length)
    order: list[int] = np.repeat(drawn, repeats)[:length].tolist()
    return order


def _loader(
    decoded: _Decoded, chunks: Sequence[Sequence[int]], workers: int, pin_memory: bool = False
) -> Iterable[list[_Loaded | UnreadableImage]]:
    return DataLoader(
        decoded,
        batch_sampler=chunks,  # type: ignore[arg-type]  # any iterable of lists of positions is one
        num_workers=workers,
        collate_fn=list,
        pin_memory=pin_memory,
        worker_init_fn=_outlive_signals,
        generator=torch.Generator().manual_seed(0),  # its own, so that the global state is left alone
    )


def _outlive_signals(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal, and SIGTERM of Slurm or torchrun every process of the job.

    This one ends when the run does, which may still need it for a step. A second SIGTERM ends it.
    """

    def obey_the_next(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, obey_the_next)


def _log_beside(source: ImageSource, log: ImageLog | None) -> None:
    if log is not None:
        for left_out in source.left_out:
            log.leave_out(left_out)


def _none_readable(source: ImageSource, unreadable: Sequence[LeftOut]) -> InputError:
    first = unreadable[0]
    return InputError(
        f"None of the {len(unreadable)} images of {source.name} can be read: {counted(unreadable)}.",
        f"Look at {first.name}" + (f": {first.detail}." if first.detail else "."),
        code="no-readable-image",
        images=len(unreadable),
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

    def next_readable(self, position: int) -> _Loaded:
        """The first image after `position`, around the end of the order, that can be read.

        Raises:
            InputError: there is none.
        """
        unreadable = []
        for step in range(1, len(self) + 1):
            item = self[(position + step) % len(self)]
            if not isinstance(item, UnreadableImage):
                return item
            unreadable.append(item.left_out)
        raise _none_readable(self.source, unreadable)


def _order(length: int, limit: int | None, seed: int | None) -> list[int]:
    count = length if limit is None else min(limit, length)
    if seed is not None:
        drawn: list[int] = np.random.default_rng(seed).permutation(length)[:count].tolist()
        return drawn
    return [index * length // count for index in range(count)] if count else []


def _collate(items: Sequence[_Loaded]) -> Batch:
    images, labels, names = zip(*items, strict=True)
    return Batch(torch.stack(images), None if None in labels else torch.tensor(labels, dtype=torch.int64), names)
