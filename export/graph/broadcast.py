"""Undoes broadcasts: the gradient of a repeated value is the sum over its repetitions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from export.graph.graph import Emitter, Shape


def sum_to(emit: Emitter, gradient: str, wide: Shape, narrow: Shape) -> str:
    """Sum a gradient of shape `wide` over the dimensions that broadcasting gave `narrow`."""
    if wide == narrow:
        return gradient
    offset = len(wide) - len(narrow)
    repeated = [axis for axis in range(len(wide)) if axis >= offset and wide[axis] != narrow[axis - offset]]
    summed = sum_over(emit, gradient, wide, [*range(offset), *repeated])
    return emit.regroup(summed, narrow) if offset else summed


def sum_over(emit: Emitter, value: str, shape: Shape, axes: list[int], factor: float = 1.0) -> str:
    """Sum over `axes`, times `factor`, and keep them with size 1.

    Trailing axes are summed by a matrix product with ones: ReduceSum on ONNX Runtime's CPU gives a row other
    bits at another place in the batch, and a verdict must not depend on the batch.
    """
    first = len(shape) - len(axes)
    if sorted(axes) != list(range(first, len(shape))) or None in shape[first:] or first == 0:
        total = emit("ReduceSum", value, emit.integers(axes), keepdims=1)
        return total if factor == 1 else emit("Mul", total, emit.real(factor))
    count = math.prod(size or 1 for size in shape[first:])
    rows = value if len(axes) == 1 else emit.reshape(value, (*shape[:first], count))
    summed = emit("MatMul", rows, emit.real(np.full((count, 1), factor)))
    return summed if len(axes) == 1 else emit.reshape(summed, (*shape[:first], *[1] * len(axes)))
