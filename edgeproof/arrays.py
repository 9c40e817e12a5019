"""Turns images and labels from numpy or PyTorch into the set that is judged."""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.errors import BadData, UsageFault, first_line
from runtime.images.npz import from_arrays
from runtime.images.store import is_float

if TYPE_CHECKING:
    from runtime.images.image_set import ImageSet, Layout


def image_set(x: Any, y: Any, *, name: str, argument: str, layout: Layout | None = None) -> ImageSet:
    """Return images and labels as a set.

    Args:
        x: uint8, or floats in [0, 1]: [N, C, H, W], [N, H, W, C] or [N, H, W]; an array, or a tensor on any device.
        y: integers [N] or [N, 1], or one-hot [N, K].
        name: the name of the set in the report.
        argument: the name of the set in errors, such as "x, y".
        layout: 'nchw' or 'nhwc', if the shape allows both.

    Raises:
        UsageFault: there is no such layout.
        BadData: an argument is not an array, or see `runtime.images.npz.from_arrays`.

    """
    if layout not in (None, "nchw", "nhwc"):
        raise UsageFault(f"layout is {layout!r}", hint="give layout='nchw' or layout='nhwc'")
    images, labels = as_numpy(x, f"the images of {argument}"), as_numpy(y, f"the labels of {argument}")
    try:
        return from_arrays(
            name, images.astype(np.float32) if is_float(images.dtype) else images, labels, layout=layout, where=name
        )
    except BadData as error:
        raise BadData(f"{argument}: {error.message.removeprefix(f'{name}: ')}", hint=error.hint) from None


def as_numpy(values: Any, what: str) -> Any:
    """Return an array, a tensor or nested lists as a numpy array.

    Args:
        values: an array, a tensor on any device, or nested lists.
        what: its name in errors.

    Raises:
        BadData: it is not an array of numbers.

    """
    if isinstance(values, (str, PathLike)):
        raise BadData(
            f"{what} are the text '{values}'", hint="an array of numpy, as numpy.load returns it, or a tensor"
        )
    try:
        tensor = values.detach().cpu() if hasattr(values, "detach") else values
        array = np.asarray(tensor.float() if str(getattr(tensor, "dtype", "")) == "torch.bfloat16" else tensor)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists; tensors without data, or sparse
        raise BadData(f"{what} are no array: {first_line(error)}", hint="an array of numpy, or a tensor") from None
    if array.dtype == object:
        raise BadData(
            f"{what} are no array of numbers", hint="an array of numpy, or a tensor; torch.cat joins those of batches"
        )
    return array
