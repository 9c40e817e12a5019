"""QuantizeLinear and DequantizeLinear: the gradient goes straight through, inside the range that is not clipped.

The integers between them carry the gradient on, through whatever moves, picks or clips them: that of 1, not of scale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from export.graph.constants import DEQUANTIZE, QUANTIZE

if TYPE_CHECKING:
    from export.graph.graph import Emitter, Gradients, Node


def quantize(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Mask what x = scale (q - zero point) cannot stand for: there the value is clipped, and moves no more.

    Rounding has no useful derivative, and counts as none (straight-through, Bengio et al. 2013). Clipping does have
    one, 0: without it the gradient of a quantiser that took a ReLU's place would flow where the ReLU's does not.
    """
    within = emit("Mul", dy, emit.cast(_and(emit, node, *_range(node))))
    if _is_undone(node):
        return {0: within}
    return {0: emit("Div", within, emit.real(_along_axis(node, _numbers(node)[0])))}


def dequantize(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Return dq = dy scale, for x = scale (q - zero point); as it is where the quantiser would divide by it again."""
    source = node.source()
    if source is not None and source.op == QUANTIZE and _is_undone(source):
        return {0: dy}
    return {0: emit("Mul", dy, emit.real(_along_axis(node, _numbers(node)[0])))}


def _is_undone(quantiser: Node) -> bool:
    """Whether all that reads the integers gives them back their own scale."""
    scale, axis = _numbers(quantiser)[0], quantiser.attribute("axis", 1)
    return all(
        reader.op == DEQUANTIZE
        and np.array_equal(_numbers(reader)[0], scale)
        and (scale.size == 1 or reader.attribute("axis", 1) == axis)
        for reader in quantiser.readers()
    )


def _range(node: Node) -> tuple[Any, Any]:
    """Return the bounds of what is rounded and not clipped, half a step beyond the least and largest integer."""
    scale, zero = _numbers(node)
    if not np.issubdtype(zero.dtype, np.integer):
        raise node.refused(f"it quantises to {zero.dtype}")
    limits = np.iinfo(zero.dtype)
    bounds = [(bound - zero.astype(np.float64)) * scale for bound in (limits.min - 0.5, limits.max + 0.5)]
    lowest, highest = (_along_axis(node, bound) for bound in bounds)
    return lowest, highest


def _along_axis(node: Node, values: Any) -> Any:
    """Return one number, or one for each place along the node's axis, so that it broadcasts against its input."""
    if values.size == 1:
        return values.reshape(())
    rank, axis = len(node.shape()), node.attribute("axis", 1)
    shape = [1] * rank
    shape[axis % rank] = values.size
    return values.reshape(shape)


def _numbers(node: Node) -> tuple[Any, Any]:
    """Return scale and zero point, both constant; without a zero point that is 0, of uint8."""
    if node.attribute("block_size", 0):
        raise node.refused("it is quantised in blocks")
    scale = node.constant(1)
    return scale.astype(np.float64), node.constant(2) if node.has(2) else np.zeros(scale.shape, np.uint8)


def _and(emit: Emitter, node: Node, lowest: Any, highest: Any) -> str:
    """Compare with both bounds, or with the upper alone where a ReLU lies before and the lower is not above 0."""
    x = node.inputs[0]
    below = emit("LessOrEqual", x, emit.real(highest))
    if node.maker() == "Relu" and (lowest <= 0).all():
        return below
    return emit("And", emit("GreaterOrEqual", x, emit.real(lowest)), below)
