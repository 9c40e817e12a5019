"""A folder of image files, one folder a class, as a set of images with labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.errors import BadData
from runtime.images.decode import Pictures, class_files
from runtime.images.image_set import Array, ImageSet
from runtime.progress import log

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LISTED = 8
"""Names that a message lists before it stops."""


def read_folder(
    path: Path, *, channels: int | None = None, name: str | None = None, decoded: bool = True
) -> tuple[ImageSet, tuple[str, ...]]:
    """Read a folder with one folder of images a class; labels follow the sorted class names.

    Args:
        path: the folder.
        channels: 1 reads grey, 3 reads RGB; by default grey where the first image is grey.
        name: what the report calls the set; the folder's by default.
        decoded: whether to decode the images now, or whenever they are looked at (see `Pictures`).

    Returns:
        The set, uint8, in turn an image of every class, so that its first images are of all; and the class names.

    Raises:
        BadData: no class folder, a class without images, an unreadable image, or images of different sizes.
        MissingEnvironment: Pillow is not installed.

    """
    files = class_files(path)
    classes = tuple(files)
    labels = np.repeat(np.arange(len(classes)), [len(names) for names in files.values()])
    order = _in_turn(labels)
    listed = [file for names in files.values() for file in names]
    pictures: Any = Pictures([listed[place] for place in order], channels)
    images = np.asarray(pictures) if decoded else pictures
    return ImageSet(name or path.name, images, labels[order], np.arange(len(labels))), classes


def class_numbers(path: Path, names: tuple[str, ...], classes: tuple[str, ...]) -> Array:
    """Return the label of each folder: the class of its name; its own number where no class has any of the names.

    Raises:
        BadData: only some are names of classes, or none is and there are not as many folders as classes.

    """
    strange = [name for name in names if name not in classes]
    if not strange:
        return np.asarray([classes.index(name) for name in names])
    if len(strange) < len(names) or len(names) != len(classes):
        raise BadData(
            f"{path}: no class of the model is called {_listed(strange)}",
            hint=f"name the folders as the classes ({_listed(classes)}), or give an .npz",
        )
    numbers = ", ".join(f"{number} = {name}" for number, name in enumerate(names))
    log(f"{path}: folders are numbered in alphabetical order: {numbers}")
    return np.arange(len(names))


def _in_turn(labels: Array) -> Array:
    """Return the order that takes the first image of every class, then the second; `labels` are sorted."""
    position = np.arange(len(labels)) - np.searchsorted(labels, labels)
    return np.lexsort((labels, position))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
