"""Element-wise arithmetic with broadcasting: Add, Sub, Mul, Div, Sum, Mean, Max, Min, Where, Expand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.graph.broadcast import sum_to
from export.graph.ties import keeps_ties

if TYPE_CHECKING:
    from export.graph.graph import Emitter, Gradients, Node


def add(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Give the gradient of y = a + b to both."""
    return {i: _narrowed(emit, node, i, dy) for i in node.active}


def subtract(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Differentiate y = a - b: da = dy, db = -dy."""
    return {i: _narrowed(emit, node, i, dy if i == 0 else emit("Neg", dy)) for i in node.active}


def multiply(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Differentiate y = a b: da = dy b, db = dy a."""
    factors = {i: emit.number(node, node.inputs[1 - i]) for i in node.active}
    return {i: _narrowed(emit, node, i, emit("Mul", dy, factor)) for i, factor in factors.items()}


def divide(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Differentiate y = a / b: da = dy / b, db = -dy y / b."""
    quotient = emit("Div", dy, node.inputs[1])
    gradients = {}
    if 0 in node.active:
        gradients[0] = _narrowed(emit, node, 0, quotient)
    if 1 in node.active:
        gradients[1] = _narrowed(emit, node, 1, emit("Neg", emit("Mul", quotient, node.outputs[0])))
    return gradients


def mean(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Give each operand its share of the gradient of their mean."""
    share = emit("Mul", dy, emit.real(1 / len(node.inputs)))
    return {i: _narrowed(emit, node, i, share) for i in node.active}


def extreme(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Max and Min: to the operand that was chosen; those that tie share, as in torch. See `export.graph.ties`."""
    if keeps_ties(node.proto):
        return {0: dy}
    chosen = [emit.equal(name, node.outputs[0]) for name in node.inputs]
    ties = chosen[0]
    for other in chosen[1:]:
        ties = emit("Add", ties, other)
    share = emit("Div", dy, ties)
    return {i: _narrowed(emit, node, i, emit("Mul", share, chosen[i])) for i in node.active}


def where(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Mask by the condition, and by its opposite; where it alone depends on the image, it is a step from b to a.

    See `led_by_branches`.
    """
    if 0 in node.active:
        a, b = (emit.number(node, name) for name in node.inputs[1:])
        return {0: _narrowed(emit, node, 0, emit("Mul", dy, emit("Sub", a, b)))}
    met = emit.cast(node.inputs[0])
    masks = {1: met, 2: emit("Sub", emit.real(1), met)}
    return {i: _narrowed(emit, node, i, emit("Mul", dy, masks[i])) for i in node.active}


def led_by_branches(node: Node) -> tuple[int, ...]:
    """Return which inputs of a Where lead on: where a branch has a slope, the condition adds none to it."""
    return tuple(position for position in node.active if position) or node.active


def expand(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Sum over what was repeated."""
    return {0: _narrowed(emit, node, 0, dy)}


def _narrowed(emit: Emitter, node: Node, position: int, gradient: str) -> str:
    return sum_to(emit, gradient, node.output_shape, node.shape(position))
