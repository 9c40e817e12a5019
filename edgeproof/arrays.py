"""Images and labels as numpy or PyTorch has them, as the set that is judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.images.npz import from_arrays
from runtime.images.store import is_float

if TYPE_CHECKING:
    from runtime.images.image_set import ImageSet, Layout


def image_set(x: Any, y: Any, *, name: str = "arrays", layout: Layout | None = None) -> ImageSet:
    """Return images and labels as a set.

    Args:
        x: uint8, or floats in [0, 1]: [N, C, H, W], [N, H, W, C] or [N, H, W]; an array, or a tensor on any device.
        y: integers [N] or [N, 1], or one-hot [N, K].
        name: what the report calls it.
        layout: 'nchw' or 'nhwc', where the shape does not tell.

    Raises:
        BadData: see `runtime.images.npz.from_arrays`.

    """
    images = as_numpy(x)
    return from_arrays(
        name, images.astype(np.float32) if is_float(images.dtype) else images, as_numpy(y), layout=layout
    )


def as_numpy(values: Any) -> Any:
    """Return an array, a tensor or nested lists as numpy has them."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
