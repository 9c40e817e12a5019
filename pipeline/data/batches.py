"""Random, augmented batches of a training set, which is held on the device or, if it does not fit, streamed to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.data.augment import AUGMENTATIONS, Augment, Switch, augment
from pipeline.data.extra import Extra, extra_of, spread
from pipeline.data.shifts import as_float
from pipeline.memory import free_memory
from runtime.errors import BadData, EdgeproofError, MissingEnvironment, first_line
from runtime.images.decode import Pictures
from runtime.images.image_set import CHUNK, ImageSet
from runtime.machine.card import cores

Place = Literal["auto", "device", "stream"]
"""Where a training set is kept: on the device, or where it was read from; auto: on the device if it fits."""
HELD_SHARE = 0.5
"""Largest share of the device's free memory for a training set; the rest is for networks and activations."""
WORKERS = 8
"""Largest number of processes that decode pictures; fewer on fewer cores."""
Batched = Iterable[tuple[Tensor, Tensor]]
Fetch = Callable[[Tensor], Batched]
"""Row numbers [batches, size] to (images as stored [size, C, H, W], labels [size]) on the device, batch by batch."""


class Batches:
    """A training set, drawn in random, augmented batches.

    Order and augmentation depend on (seed, epoch) only, not on where the set is kept. So a run can be resumed after a
    stop, and on another machine.

    Args:
        images: the set. It is kept as it is stored, usually uint8, and converted to float32 in [0, 1] batch by batch.
        size: images in a batch; the last, smaller batch of an epoch is left out.
        crop: padding in pixels before a random crop of the image's own size; used by 'pad-crop' only.
        flip: whether half of the images are mirrored left to right.
        kind: how the images are augmented.
        switch: the number of epochs after which another kind is used, and that kind.
        seed: seeds order and augmentation.
        device: where the batches are yielded.
        place: where the set is kept.
        sharing: number of processes of this run on this machine, which share its cores.
        extra: further images, kept in the same way. An epoch has as many batches as without them. They are their share
            of each batch, drawn with replacement and spread evenly over it.

    """

    def __init__(
        self,
        images: ImageSet,
        size: int,
        *,
        crop: int,
        flip: bool,
        kind: Augment = "pad-crop",
        switch: Switch | None = None,
        seed: int,
        device: torch.device,
        place: Place = "auto",
        sharing: int = 1,
        extra: Extra | None = None,
    ) -> None:
        if len(images) < size:
            raise BadData(f"{len(images)} training images do not fill one batch of {size}")
        self.place = resolve_place(place, images, device)
        self._fetch = FETCHES[self.place](images, device, sharing)
        self._count, self.size, self.crop, self.flip, self.seed = len(images), size, crop, flip, seed
        self.kind, self.switch, self.device = kind, switch, device
        self._extra: tuple[Fetch, int, int] | None = None
        if extra is not None:
            fetch = FETCHES[resolve_place(place, extra.images, device)](extra.images, device, sharing)
            self._extra = fetch, len(extra.images), extra_of(size, extra.share)

    def __len__(self) -> int:
        """Return the number of batches in one epoch."""
        return self._count // self.size

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images float32 [B, C, H, W] in [0, 1], labels int64 [B]) for one epoch."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        kind = self.switch[1] if self.switch and number >= self.switch[0] else self.kind
        drawn = self._drawn(generator)
        draws = [AUGMENTATIONS[kind].draw(self.size, self.crop, self.flip, generator) for _ in range(len(self))]
        for (images, labels), numbers in zip(drawn, torch.stack(draws).to(self.device), strict=True):
            yield augment(kind, images, numbers), labels

    def _drawn(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Draw the images of an epoch, and return its batches before augmentation."""
        own = self.size - (self._extra[2] if self._extra else 0)
        order = torch.randperm(self._count, generator=generator)[: len(self) * own].view(-1, own)
        if self._extra is None:
            return iter(self._fetch(order))
        fetch, count, each = self._extra
        others = torch.randint(count, (len(self), each), generator=generator)
        return _mixed(self._fetch(order), fetch(others), spread(own, each).to(self.device))


def _mixed(own: Batched, extra: Batched, places: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of two epochs joined: own images, then extra ones, reordered by `places`."""
    for (images, labels), (more, their) in zip(own, extra, strict=True):
        yield torch.cat((as_float(images), as_float(more)))[places], torch.cat((labels, their))[places]


def resolve_place(place: Place, images: ImageSet, device: torch.device) -> Place:
    """Return where a set is kept: for `auto`, on the device if the set fills at most half of its free memory.

    On the CPU, `auto` means the device if the set is already in memory; see `pipeline.data.sets.load_dataset`.
    """
    if place != "auto":
        return place
    if device.type == "cpu":
        return "device" if type(images.images) is np.ndarray else "stream"
    needed = images.images.size * images.images.dtype.itemsize
    return "device" if needed <= HELD_SHARE * free_memory(device) else "stream"


def _held(images: ImageSet, device: torch.device, sharing: int) -> Fetch:
    stored = _on_device(images.images, device)
    labels = torch.from_numpy(images.labels).to(device)

    def fetch(order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in order.to(device):
            yield stored[rows], labels[rows]

    return fetch


def _on_device(images: Any, device: torch.device) -> Tensor:
    """Copy images to a device; images that are not in memory are copied in parts, so that they never fill it."""
    if type(images) is np.ndarray:
        return torch.from_numpy(np.ascontiguousarray(images)).to(device)
    stored = torch.empty(images.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(images), CHUNK):
        stored[start : start + CHUNK] = torch.from_numpy(np.array(images[start : start + CHUNK])).to(device)
    return stored


class _Rows(Dataset[Any]):
    """An image set as DataLoader reads it: a whole batch at a time. An error is returned, not raised."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __getitems__(self, rows: list[int]) -> tuple[Tensor, Tensor] | EdgeproofError:
        """Return images and labels of these rows."""
        try:
            pixels = np.asarray(self.images.images[np.asarray(rows)])
        except EdgeproofError as error:
            return error
        return torch.from_numpy(pixels), torch.from_numpy(self.images.labels[rows])


def _as_it_is(batch: Any) -> Any:
    return batch


def decoders(sharing: int) -> int:
    """Return how many processes decode pictures for each training process on this machine."""
    return min(WORKERS, max(1, cores() // sharing))


def _streamed(images: ImageSet, device: torch.device, sharing: int) -> Fetch:
    stored: Any = images.images
    workers = decoders(sharing) if isinstance(stored, Pictures) else 0

    def fetch(order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        loader = DataLoader(
            _Rows(images),
            batch_sampler=order.tolist(),
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # otherwise it draws from the global one
        )
        for batch in _unless_a_worker_dies(loader):
            if isinstance(batch, EdgeproofError):
                raise batch
            pixels, labels = batch
            yield pixels.to(device, non_blocking=True), labels.to(device, non_blocking=True)

    return fetch


def _unless_a_worker_dies(loader: DataLoader[Any]) -> Iterator[Any]:
    batches = iter(loader)
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise MissingEnvironment(
                f"a process that decodes images was lost: {first_line(error)}",
                hint="memory may have run out; in a container, this may be shared memory: docker run --shm-size=2g",
            ) from error
        yield batch


FETCHES: dict[Place, Callable[[ImageSet, torch.device, int], Fetch]] = {"device": _held, "stream": _streamed}
