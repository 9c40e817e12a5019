"""Element-wise arithmetic with broadcasting: Add, Sub, Mul, Div."""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.rules.broadcast import sum_to

if TYPE_CHECKING:
    from export.graph import Emitter, Node
    from export.rules import Gradients


def add(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Give the gradient of y = a + b to both."""
    return {i: _narrowed(emit, node, i, dy) for i in node.active}


def subtract(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Differentiate y = a - b: da = dy, db = -dy."""
    return {i: _narrowed(emit, node, i, dy if i == 0 else emit("Neg", dy)) for i in node.active}


def multiply(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Differentiate y = a b: da = dy b, db = dy a."""
    return {i: _narrowed(emit, node, i, emit("Mul", dy, node.inputs[1 - i])) for i in node.active}


def divide(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Differentiate y = a / b: da = dy / b, db = -dy y / b."""
    quotient = emit("Div", dy, node.inputs[1])
    gradients = {}
    if 0 in node.active:
        gradients[0] = _narrowed(emit, node, 0, quotient)
    if 1 in node.active:
        gradients[1] = _narrowed(emit, node, 1, emit("Neg", emit("Mul", quotient, node.outputs[0])))
    return gradients


def _narrowed(emit: Emitter, node: Node, position: int, gradient: str) -> str:
    return sum_to(emit, gradient, node.output_shape, node.shape(position))
