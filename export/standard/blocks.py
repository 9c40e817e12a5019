"""Weights quantised in blocks, as ONNX has them from opset 21 on: a row for each block, a scale for each row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.graph.constants import DEQUANTIZE

if TYPE_CHECKING:
    from export.graph.graph import Emitter
    from export.standard.part import Part


def dequantize(emit: Emitter, part: Part, domain: str) -> str | None:
    """Dequantise stored integers by rows, and bring these to the weights' own order: the same to the bit.

    Args:
        emit: where to.
        part: a DequantizeLinear with a `block_size`.
        domain: of the one that takes these integers.

    Returns:
        The weights; None where they are no constants, or the last block is not whole.

    """
    values, scale, zero = (part.constant(position) for position in range(3))
    size = part.attribute("block_size", 0)
    if values is None or scale is None or (part.input(2) and zero is None):
        return None
    axis, rank = part.attribute("axis", 1) % values.ndim, values.ndim
    blocks = scale.shape[axis]
    if values.shape[axis] != blocks * size:
        return None
    apart = values.reshape(*values.shape[:axis], blocks, size, *values.shape[axis + 1 :])
    last = [*range(axis + 1), *range(axis + 2, rank + 1), axis + 1]
    rows = apart.transpose(last).reshape(-1, size)
    numbers = [scale.reshape(-1), *([] if zero is None else [zero.reshape(-1)])]
    reals = emit(DEQUANTIZE, *map(emit.constant, [rows, *numbers]), domain=domain, axis=0)
    whole = emit("Reshape", reals, emit.integers([*scale.shape, size]))
    back = emit("Transpose", whole, perm=[*range(axis + 1), rank, *range(axis + 1, rank)])
    return emit("Reshape", back, emit.integers(values.shape))
