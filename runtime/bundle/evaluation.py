"""The evaluation images of a bundle."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from runtime.bundle.manifest import EVALUATION, OTHER_MAKE
from runtime.errors import BadBundle, BadData
from runtime.images.npz import read_npz

if TYPE_CHECKING:
    from pathlib import Path

    from runtime.bundle.opening import Bundle
    from runtime.images.image_set import ImageSet
    from runtime.images.unlinked_file import Copy
    from runtime.spec import DataRecord


def evaluation_images(bundle: Bundle) -> ImageSet:
    """Return the evaluation images of a bundle, which then keeps them in place of their file's bytes.

    Raises:
        BadBundle: the images cannot be read, or differ from those that the manifest records.

    """
    return bundle.read_once(EVALUATION, partial(_read, bundle.path / EVALUATION, bundle.manifest.evaluation))


def _read(path: Path, record: DataRecord, copy: Copy) -> ImageSet:
    try:
        with copy.open() as file:
            images = read_npz(file, name=record.name, layout="nchw")
    except BadData as error:
        raise BadBundle(f"{path}: {error.message}", hint=OTHER_MAKE) from None
    if (len(images), images.sha256) != (record.n, record.sha256):
        raise BadBundle(f"{path}: its images are not the {record.n} that the manifest records", hint=OTHER_MAKE)
    return images
