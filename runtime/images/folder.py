"""A folder of image files, one folder a class, as a set of images with labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.images.decode import Pictures, class_files
from runtime.images.image_set import Array, ImageSet

if TYPE_CHECKING:
    from pathlib import Path

    from runtime.images.preprocessing import Preprocessing


def read_folder(
    path: Path,
    *,
    channels: int | None = None,
    preprocessing: Preprocessing | None = None,
    name: str | None = None,
    decoded: bool = True,
) -> ImageSet:
    """Read a folder with one folder of images a class; labels number the classes in the order of `in_order`.

    Args:
        path: the folder.
        channels: see `Pictures`.
        preprocessing: see `Pictures`.
        name: what the report calls the set; the folder's by default.
        decoded: whether to decode the images now, or whenever they are looked at (see `Pictures`).

    Returns:
        The set, uint8, in turn an image of every class, so that its first images are of all.

    Raises:
        BadData: no class folder, a class without images, an unreadable image, or images of different sizes.
        MissingEnvironment: Pillow is not installed.

    """
    files = class_files(path)
    classes = tuple(files)
    labels = np.repeat(np.arange(len(classes)), [len(names) for names in files.values()])
    order = _in_turn(labels)
    listed = [file for names in files.values() for file in names]
    pictures: Any = Pictures([listed[position] for position in order], channels, preprocessing)
    images = np.asarray(pictures) if decoded else pictures
    return ImageSet(name or path.name, images, labels[order], np.arange(len(labels)), classes)


def _in_turn(labels: Array) -> Array:
    """Return the order that takes the first image of every class, then the second; `labels` are sorted."""
    position = np.arange(len(labels)) - np.searchsorted(labels, labels)
    return np.lexsort((labels, position))
