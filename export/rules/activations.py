"""Activations: Relu and its kin, Clip, Elu and its kin, HardSigmoid, HardSwish, Softmax, LogSoftmax, and Identity.

A mask is computed from the output where that is exact: it is there anyway, so that ONNX Runtime can still fuse the
activation into its convolution. Measured there, batch 64, two cores, MobileNetV2 at a quarter width: HardSigmoid times
dy makes forward and gradient together cost 3.1 forwards, Greater, Cast and Mul 4.0; Where and Sign cost more again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from export.graph.broadcast import sum_over

if TYPE_CHECKING:
    from export.graph.graph import Emitter, Gradients, Node


STEEP = 2.0**60
NEXT_TO_NOTHING = 1e-20
"""In place of a `beta` of 0, which OpenVINO 2026.4 reads as its default of 0.5; too small to change any answer."""
SPREADING = ("Conv", "BatchNormalization")
"""Operations whose outputs lie on no bound given beforehand, but for chance."""


def identity(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Hand the gradient on: y = x."""
    return {0: dy}


def dropout(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Hand the gradient on: in inference nothing is dropped."""
    if node.has(2) and bool(node.constant(2)):
        raise node.refused("it is in training mode")
    return {0: dy}


def relu(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Mask y = max(x, 0); the gradient at the kink is 0, as torch has it."""
    return {0: emit("Mul", dy, _beyond(emit, emit.number(node, node.outputs[0]), 0.0, 1))}


def clip(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Mask y = min(max(x, low), high), both optional; on a bound the derivative is the one from inside.

    Pixels of stored images lie on 0 and 1, and an attack can move them inwards: a zero there would hide them from it.
    Behind a convolution nothing lies on a bound, and the cheap mask from the output serves.
    """
    spread = node.maker() in SPREADING
    for position, sign, inside in ((1, 1, "GreaterOrEqual"), (2, -1, "LessOrEqual")):
        if node.has(position):
            bound = float(node.constant(position))
            mask = (
                _beyond(emit, node.outputs[0], bound, sign)
                if spread
                else emit.cast(emit(inside, emit.number(node, node.inputs[0]), emit.real(bound)))
            )
            dy = emit("Mul", dy, mask)
    return {0: dy}


def leaky_relu(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Return dy where x > 0, else alpha dy."""
    alpha = node.attribute("alpha", 0.01)
    return {0: emit("Mul", dy, _between(emit, node.inputs[0], alpha, 1.0))}


def prelu(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Return dy where x > 0, else slope dy; the slope is constant, of one channel or all."""
    return {0: emit("Mul", dy, _between(emit, node.inputs[0], node.constant(1), 1.0))}


def thresholded_relu(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Mask y = x where x > alpha, else 0."""
    return {0: emit("Mul", dy, _beyond(emit, node.inputs[0], node.attribute("alpha", 1.0), 1))}


def elu(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Differentiate y = x where x > 0, else alpha (exp(x) - 1)."""
    return _exponential_unit(emit, node, dy, node.attribute("alpha", 1.0), 1.0, 1.0)


def celu(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Differentiate y = x where x > 0, else alpha (exp(x / alpha) - 1)."""
    return _exponential_unit(emit, node, dy, 1.0, 1.0, 1 / node.attribute("alpha", 1.0))


def selu(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Differentiate y = gamma elu(x)."""
    gamma = node.attribute("gamma", 1.0507010221481323)
    return _exponential_unit(emit, node, dy, gamma * node.attribute("alpha", 1.6732631921768188), gamma, 1.0)


def hard_sigmoid(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Return alpha dy where 0 < y < 1."""
    slope = emit("Mul", _inside_unit(emit, node.outputs[0]), emit.real(node.attribute("alpha", 0.2)))
    return {0: emit("Mul", dy, slope)}


def hard_swish(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Differentiate y = x h, h = clip(x / 6 + 1 / 2, 0, 1): dx = dy (h + x h')."""
    x = node.inputs[0]
    h = emit("HardSigmoid", x, alpha=1 / 6, beta=0.5)
    bent = emit("Mul", emit("Mul", x, emit.real(1 / 6)), _inside_unit(emit, h))
    return {0: emit("Mul", dy, emit("Add", h, bent))}


def softmax(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Return dx = y (dy - sum(dy y)) along the axis."""
    y = node.outputs[0]
    total = _sum_along_axis(emit, node, emit("Mul", dy, y))
    return {0: emit("Mul", y, emit("Sub", dy, total))}


def log_softmax(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Return dx = dy - exp(y) sum(dy) along the axis."""
    total = _sum_along_axis(emit, node, dy)
    return {0: emit("Sub", dy, emit("Mul", emit("Exp", node.outputs[0]), total))}


def _beyond(emit: Emitter, y: str, bound: float, sign: int) -> str:
    """Return 1 where sign (y - bound) > 0, else 0.

    In float32 by a HardSigmoid so steep that it is a step: exact, since its slope is a power of two, but for y
    within 1e-18 of a bound of 0. It stays in the blocked layout of ONNX Runtime's convolutions, which a
    comparison leaves.
    """
    if emit.dtype == np.float32 and abs(bound) < STEEP:
        return emit("HardSigmoid", y, alpha=sign * STEEP, beta=-sign * bound * STEEP or -NEXT_TO_NOTHING)
    return emit.cast(emit("Greater" if sign > 0 else "Less", y, emit.real(bound)))


def _inside_unit(emit: Emitter, y: str) -> str:
    return emit("Mul", _beyond(emit, y, 0.0, 1), _beyond(emit, y, 1.0, -1))


def _between(emit: Emitter, x: str, below: Any, above: float) -> str:
    """Return `above` where x > 0, else `below`."""
    low = np.asarray(below, np.float64)
    return emit("Add", emit("Mul", _beyond(emit, x, 0.0, 1), emit.real(above - low)), emit.real(low))


def _exponential_unit(emit: Emitter, node: Node, dy: str, depth: float, above: float, rate: float) -> Gradients:
    """Differentiate y = above x where x > 0, else depth / rate (exp(rate x) - 1): there the slope is rate y + depth."""
    fallen = emit("Min", emit("Mul", node.outputs[0], emit.real(rate)), emit.real(0))
    slope = emit("Add", fallen, _between(emit, node.inputs[0], depth, above))
    return {0: emit("Mul", dy, slope)}


def _sum_along_axis(emit: Emitter, node: Node, value: str) -> str:
    axis = node.attribute("axis", -1) % len(node.shape())
    if node.shape()[axis] is None:
        raise node.refused("it normalises over the batch")
    return sum_over(emit, value, node.shape(), [axis])
