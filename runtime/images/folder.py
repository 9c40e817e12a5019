"""Reads a folder that has a folder of image files for each class."""

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
    """Read a folder that has a folder of images for each class. Labels number the classes in the order of `in_order`.

    Args:
        path: the folder.
        channels: see `Pictures`.
        preprocessing: see `Pictures`.
        name: the set's name in the report; by default the folder's.
        decoded: whether to decode the images now, or each time they are used (see `Pictures`).

    Returns:
        The set in uint8. It takes an image of each class in turn, so that its first images are of all classes.

    Raises:
        BadData: there is no class folder, a class has no images, an image cannot be read, or sizes differ.
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
    """Return the order that takes the first image of every class, then the second, and so on; `labels` are sorted."""
    position = np.arange(len(labels)) - np.searchsorted(labels, labels)
    return np.lexsort((labels, position))
