"""Further training images, of which every batch has a share: generated ones, as a rule."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipeline.data.sets import Dataset
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
        BadData: no such .npz, images of another shape, or a label that is none of the classes.

    """
    images = read_npz(path, split="train")
    channels, height, width = dataset.train.images.shape[1:]
    images.check_fits((channels, height, width), dataset.classes)
    return Extra(images, share)


def extra_of(size: int, share: float) -> int:
    """Return how many images of a batch are extra."""
    return round(size * share)


def spread(own: int, extra: int) -> Tensor:
    """Return the order that spreads the extra images evenly over a batch of `own` and then `extra` ones: int64 [B].

    So every part of a batch has its share of them.
    """
    places = [(torch.arange(count, dtype=torch.float64) + 0.5) / count for count in (own, extra)]
    return torch.cat(places).argsort(stable=True)
