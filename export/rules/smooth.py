"""Smooth activations: Sigmoid, Tanh, Erf, Gelu, Softplus, Softsign, Mish."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from export.graph.graph import Emitter, Gradients, Node

TANH_CUBIC = 0.044715
"""Of Gelu's approximation by Tanh (Hendrycks & Gimpel 2016)."""


def sigmoid(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Return dx = dy y (1 - y)."""
    return {0: emit("Mul", dy, _logistic_slope(emit, node.outputs[0]))}


def sine(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Return dx = dy cos(x)."""
    return {0: emit("Mul", dy, emit("Cos", node.inputs[0]))}


def cosine(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Return dx = -dy sin(x)."""
    return {0: emit("Neg", emit("Mul", dy, emit("Sin", node.inputs[0])))}


def arc_tangent(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Return dx = dy / (1 + x^2)."""
    x = node.inputs[0]
    return {0: emit("Div", dy, emit("Add", emit("Mul", x, x), emit.real(1)))}


def tanh(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Return dx = dy (1 - y^2)."""
    return {0: emit("Mul", dy, _tanh_slope(emit, node.outputs[0]))}


def erf(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Return dx = dy 2 / sqrt(pi) exp(-x^2)."""
    return {0: emit("Mul", dy, emit("Mul", _bell(emit, node.inputs[0], 1.0), emit.real(2 / math.sqrt(math.pi))))}


def gelu(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Differentiate x Phi(x), exact or approximated by Tanh."""
    approximate = node.attribute("approximate", b"none") == b"tanh"
    slope = _gelu_tanh_slope if approximate else _gelu_slope
    return {0: emit("Mul", dy, slope(emit, node.inputs[0]))}


def softplus(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Return dx = dy sigmoid(x)."""
    return {0: emit("Mul", dy, emit("Sigmoid", node.inputs[0]))}


def softsign(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Differentiate y = x / (1 + |x|): dx = dy (1 - |y|)^2."""
    rest = emit("Sub", emit.real(1), emit("Abs", node.outputs[0]))
    return {0: emit("Mul", dy, emit("Mul", rest, rest))}


def mish(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Differentiate x t, t = tanh(softplus(x)): dx = dy (t + x sigmoid(x) (1 - t^2))."""
    x = node.inputs[0]
    t = emit("Tanh", emit("Softplus", x))
    inner = emit("Mul", emit("Mul", x, emit("Sigmoid", x)), _tanh_slope(emit, t))
    return {0: emit("Mul", dy, emit("Add", t, inner))}


def _logistic_slope(emit: Emitter, y: str) -> str:
    return emit("Mul", y, emit("Sub", emit.real(1), y))


def _tanh_slope(emit: Emitter, y: str) -> str:
    return emit("Sub", emit.real(1), emit("Mul", y, y))


def _bell(emit: Emitter, x: str, factor: float) -> str:
    """Return exp(-factor x^2)."""
    return emit("Exp", emit("Mul", emit("Mul", x, x), emit.real(-factor)))


def _gelu_slope(emit: Emitter, x: str) -> str:
    """Return Phi(x) + x phi(x), the normal distribution and its density."""
    below = emit("Erf", emit("Mul", x, emit.real(1 / math.sqrt(2))))
    distribution = emit("Add", emit("Mul", below, emit.real(0.5)), emit.real(0.5))
    density = emit("Mul", _bell(emit, x, 0.5), emit.real(1 / math.sqrt(2 * math.pi)))
    return emit("Add", distribution, emit("Mul", x, density))


def _gelu_tanh_slope(emit: Emitter, x: str) -> str:
    """Return (1 + t) / 2 + x (1 - t^2) u' / 2 where t = tanh(u), u = sqrt(2 / pi) (x + 0.044715 x^3)."""
    root = math.sqrt(2 / math.pi)
    square = emit("Mul", x, x)
    inner = emit("Add", emit("Mul", square, emit.real(root * TANH_CUBIC)), emit.real(root))
    t = emit("Tanh", emit("Mul", x, inner))
    change = emit("Add", emit("Mul", square, emit.real(3 * root * TANH_CUBIC)), emit.real(root))
    bent = emit("Mul", emit("Mul", x, change), _tanh_slope(emit, t))
    return emit("Mul", emit("Add", emit("Add", t, bent), emit.real(1)), emit.real(0.5))
