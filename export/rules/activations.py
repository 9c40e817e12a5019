"""Activations: Relu, Clip, Sigmoid, Tanh, Softmax, LogSoftmax, and Identity.

A mask is computed from the output: that is there anyway, so that ONNX Runtime can still fuse the activation into its
convolution. Measured there, batch 64, two cores, MobileNetV2 at a quarter width: HardSigmoid times dy makes forward
and gradient together cost 3.1 forwards, Greater, Cast and Mul 4.0; Where and Sign cost more again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from export.rules.broadcast import sum_over

if TYPE_CHECKING:
    from export.graph import Emitter, Node
    from export.rules import Gradients


STEEP = 2.0**60


def identity(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Hand the gradient on: y = x."""
    return {0: dy}


def relu(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Mask y = max(x, 0); the gradient at the kink is 0, as torch has it."""
    return {0: emit("Mul", dy, _beyond(emit, node.outputs[0], 0.0, 1))}


def clip(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Mask y = min(max(x, low), high), both optional; on the bounds the gradient is 0, as in torch's ReLU6."""
    for position, sign in ((1, 1), (2, -1)):
        if node.has(position):
            bound = float(node.constant(position))
            dy = emit("Mul", dy, _beyond(emit, node.outputs[0], bound, sign))
    return {0: dy}


def sigmoid(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Return dx = dy y (1 - y)."""
    y = node.outputs[0]
    return {0: emit("Mul", dy, emit("Mul", y, emit("Sub", emit.real(1), y)))}


def tanh(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Return dx = dy (1 - y^2)."""
    y = node.outputs[0]
    return {0: emit("Mul", dy, emit("Sub", emit.real(1), emit("Mul", y, y)))}


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
        return emit("HardSigmoid", y, alpha=sign * STEEP, beta=-sign * bound * STEEP)
    return emit.cast(emit("Greater" if sign > 0 else "Less", y, emit.real(bound)))


def _sum_along_axis(emit: Emitter, node: Node, value: str) -> str:
    axis = node.attribute("axis", -1) % len(node.shape())
    if axis == 0:
        raise node.refused("it normalises over the batch")
    return sum_over(emit, value, node.shape(), [axis])
