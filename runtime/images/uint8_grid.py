"""Rounds points to the levels k/255, because a device gets its images as bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.errors import BadData, UsageFault
from runtime.words import radius

if TYPE_CHECKING:
    from runtime.images.image_set import ImageSet

LEVELS = 255
SLACK = 1e-4
"""In levels: the tolerance for pixels whose level float32 has rounded. It is 4e-7 of the range, more than needed."""


def to_levels(x: Any) -> Any:
    """Return the nearest level of each pixel of images in [0, 1]: float64, whole numbers from 0 to 255."""
    return np.clip(np.rint(LEVELS * np.asarray(x, np.float64)), 0, LEVELS)


def to_lattice(x: Any, clean: Any, eps: float) -> Any:
    """Round each pixel to the nearest k/255 that lies within eps of the clean image and in [0, 1].

    Args:
        x: float32 [B, C, H, W], points in the ball.
        clean: float32 [B, C, H, W], its centres.
        eps: radius in L-infinity.

    Returns:
        float32 [B, C, H, W]; each pixel equals that of an image stored as uint8.

    Raises:
        BadData: a pixel has no such level, because the image was not uint8 and eps is below 1/510.

    """
    centre = LEVELS * np.asarray(clean, np.float64)
    low = np.maximum(np.ceil(centre - LEVELS * eps - SLACK), 0)
    high = np.minimum(np.floor(centre + LEVELS * eps + SLACK), LEVELS)
    if (low > high).any():
        raise BadData(
            f"no point of the uint8 lattice lies within {radius(eps)} of every image",
            hint="--lattice needs images stored as uint8, or an eps of at least 1/510",
        )
    level = np.clip(to_levels(x), low, high)
    return np.asarray(level.astype(np.float32) / np.float32(LEVELS))


def check_whole_levels(images: ImageSet, eps: float) -> None:
    """Check that images and eps are whole levels, so that the rounding of a model that takes bytes stays in the ball.

    Raises:
        BadData: the images are not uint8.
        UsageFault: eps is not a whole number of levels. 0 is allowed.

    """
    if images.images.dtype != np.uint8:
        raise BadData(
            f"{images.name}: images are {images.images.dtype}, but the model takes bytes",
            hint="keep them as they were stored: (255 * x).round().astype('uint8')",
        )
    levels = LEVELS * eps
    if eps and (round(levels) == 0 or abs(levels - round(levels)) > SLACK):
        raise UsageFault(
            f"eps is {radius(eps)}, but the model takes bytes, and a pixel can move only by a whole number of 1/255",
            hint=f"--eps {max(int(levels), 1)}/255",
        )
