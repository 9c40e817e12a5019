"""Further training images, usually generated ones, that make up a share of every batch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.data.overlap import seen_among
from pipeline.data.sets import Dataset
from runtime.errors import BadData
from runtime.images.image_set import ImageSet
from runtime.images.npz import read_npz


@dataclass(frozen=True)
class Extra:
    """Further images, and their share of each batch, between 0 and 1."""

    images: ImageSet
    share: float


def load_extra(path: Path, share: float, dataset: Dataset) -> Extra:
    """Read further images of a data set's shape and classes from an .npz.

    Raises:
        BadData: there is no such .npz, its images have another shape, or a label is not one of the classes.

    """
    images = read_npz(path, split="train")
    channels, height, width = dataset.train.images.shape[1:]
    images.check_fits((channels, height, width), dataset.classes)
    return Extra(images, share)


def refuse_judged(extra: Extra, judged: ImageSet, role: str) -> None:
    """Refuse extra images on which the network will be judged; see `seen_among`.

    Args:
        extra: the extra training images.
        judged: hold-out or test images.
        role: the role of these, in words.

    Raises:
        BadData: an image is in both sets.

    """
    seen = seen_among(extra.images, judged)
    if seen.any():
        first = int(np.flatnonzero(seen)[0])
        raise BadData(
            f"{int(seen.sum())} of the {len(seen)} extra images are {role} images, such as image {first}",
            hint="remove them from data.extra: a network that has trained on them looks better than it is",
        )


def extra_of(size: int, share: float) -> int:
    """Return the number of extra images in a batch of `size`."""
    return round(size * share)


def spread(own: int, extra: int) -> Tensor:
    """Return the order that spreads the extra images evenly over a batch of `own` and then `extra` images: int64 [B].

    So every part of a batch has the same share of them.
    """
    places = [(torch.arange(count, dtype=torch.float64) + 0.5) / count for count in (own, extra)]
    return torch.cat(places).argsort(stable=True)
