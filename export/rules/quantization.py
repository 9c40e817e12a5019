"""QuantizeLinear and DequantizeLinear: the gradient goes straight through, inside the range that is not clipped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from export.graph.constants import QUANTIZE

if TYPE_CHECKING:
    from export.graph.graph import Emitter, Node
    from export.rules import Gradients


def quantize(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Mask what x = scale (q - zero point) cannot stand for: there the value is clipped, and moves no more.

    Rounding has no useful derivative, and counts as none (straight-through, Bengio et al. 2013). Clipping does have
    one, 0: without it the gradient of a quantiser that took a ReLU's place would flow where the ReLU's does not.
    """
    lowest, highest = _range(node)
    within = _and(emit, node, lowest, highest)
    return {0: emit("Mul", dy, emit.cast(within))}


def dequantize(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Hand the gradient on to the quantiser that made the integers, which has the same scale and zero point."""
    source = node.source()
    if source is None or source.op != QUANTIZE:
        raise node.refused("its input is not made by QuantizeLinear")
    same = all(np.array_equal(ours, theirs) for ours, theirs in zip(_numbers(node), _numbers(source), strict=True))
    if not same or node.attribute("axis", 1) != source.attribute("axis", 1):
        raise node.refused("its scale or zero point is not its quantiser's")
    return {0: dy}


def _range(node: Node) -> tuple[Any, Any]:
    """Return the bounds of what is rounded and not clipped, half a step beyond the least and largest integer."""
    scale, zero = _numbers(node)
    if not np.issubdtype(zero.dtype, np.integer):
        raise node.refused(f"it quantises to {zero.dtype}")
    limits = np.iinfo(zero.dtype)
    bounds = [(bound - zero.astype(np.float64)) * scale for bound in (limits.min - 0.5, limits.max + 0.5)]
    if scale.size == 1:
        return tuple(bound.reshape(()) for bound in bounds)
    rank, axis = len(node.shape()), node.attribute("axis", 1)
    shape = [1] * rank
    shape[axis % rank] = scale.size
    return tuple(bound.reshape(shape) for bound in bounds)


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
