"""Finds images of one set in another: a network looks better than it is on images that it has trained on."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtime.errors import BadData
from runtime.images.image_set import ImageSet, pixel_digests
from runtime.words import points

COPIES = 0.05
"""Largest share of test images among the training images; published sets hold a few copies."""


def seen_among(images: ImageSet, others: ImageSet) -> Any:
    """Return which of `images` are among `others`, as they are or mirrored left to right: bool [N].

    Pixels are compared in steps of 1/255. Images that were resized, compressed or changed otherwise are not found.
    """
    return np.isin(_digests(images), _both_ways(others))


def copies_in_words(training: ImageSet, judged: ImageSet, role: str) -> str | None:
    """Return how many judged images are training images too, and what that does to a figure; None if none is.

    Raises:
        BadData: they are more than COPIES of the test images, so that no figure and no verdict would mean anything.

    """
    seen = int(np.isin(_both_ways(judged), _digests(training)).any(axis=0).sum())
    if not seen:
        return None
    found = f"{seen} of the {len(judged)} {role} images are training images too, as they are or mirrored"
    if role == "test" and seen > COPIES * len(judged):
        raise BadData(found, hint="take other images for the test, or remove these from the training images")
    return f"{found}: accuracy on {role} images may be up to {points(seen / len(judged))} too high"


def _digests(images: ImageSet) -> Any:
    if images.images.dtype == np.uint8:
        return images.pixels
    return np.concatenate([pixel_digests(_in_bytes(some)) for some in images.chunks()])


def _both_ways(images: ImageSet) -> Any:
    """Return the digests of images as they are and mirrored: int64 [2, N]."""
    views = ((some, some[..., ::-1]) for some in map(_in_bytes, images.chunks()))
    return np.concatenate([[pixel_digests(view) for view in both] for both in views], axis=1)


def _in_bytes(images: Any) -> Any:
    """Return images [N, C, H, W] as uint8; floats are in [0, 1]."""
    return images if images.dtype == np.uint8 else np.rint(255 * images).astype(np.uint8)
