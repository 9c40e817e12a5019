"""The images that travel with a model, taken out of its bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.bundle.manifest import EVALUATION, OTHER_MAKE
from runtime.errors import BadBundle, BadData
from runtime.images.npz import read_npz

if TYPE_CHECKING:
    from runtime.bundle.opening import Bundle
    from runtime.images.image_set import ImageSet


def evaluation_images(bundle: Bundle) -> ImageSet:
    """Return the images inside a bundle, which keeps their file no longer.

    Raises:
        BadBundle: they cannot be read, or are not those that the manifest records.

    """
    record, path = bundle.manifest.evaluation, bundle.path / EVALUATION
    try:
        with bundle.take(EVALUATION).open() as file:
            images = read_npz(file, name=record.name, layout="nchw")
    except BadData as error:
        raise BadBundle(f"{path}: {error.message}", hint=OTHER_MAKE) from None
    if (len(images), images.sha256) != (record.n, record.sha256):
        raise BadBundle(f"{path}: its images are not the {record.n} that the manifest records", hint=OTHER_MAKE)
    return images
