"""One number to one number: Abs, Neg, Exp, Log, Sqrt, Pow, Reciprocal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.graph.broadcast import sum_to

if TYPE_CHECKING:
    from export.graph.graph import Array, Emitter, Gradients, Node


def absolute(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Return dx = dy sign(x); 0 at 0."""
    return {0: emit("Mul", dy, emit("Sign", node.inputs[0]))}


def negative(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Return dx = -dy."""
    return {0: emit("Neg", dy)}


def exponential(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Return dx = dy y."""
    return {0: emit("Mul", dy, node.outputs[0])}


def logarithm(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Return dx = dy / x."""
    return {0: emit("Div", dy, node.inputs[0])}


def square_root(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Return dx = dy / (2 y); 0 at 0, as the root of a norm or of a deviation has it in torch."""
    y = node.outputs[0]
    return {0: quotient(emit, dy, emit("Add", y, y))}


def quotient(emit: Emitter, numerator: str, denominator: str) -> str:
    """Return a / b, and 0 where b is 0."""
    nothing = emit.equal(denominator, emit.real(0))
    kept = emit("Mul", numerator, emit("Sub", emit.real(1), nothing))
    return emit("Div", kept, emit("Add", denominator, nothing))


def reciprocal(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Return dx = -dy y^2."""
    y = node.outputs[0]
    return {0: emit("Neg", emit("Mul", dy, emit("Mul", y, y)))}


def power(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Differentiate x^p with a constant exponent: dx = dy p x^(p-1)."""
    if 1 in node.active:
        raise node.refused("its exponent depends on the image")
    exponent = node.constant(1)
    slope = emit("Mul", _lower_power(emit, node.inputs[0], exponent), emit.real(exponent))
    return {0: sum_to(emit, emit("Mul", dy, slope), node.output_shape, node.shape())}


def _lower_power(emit: Emitter, x: str, exponent: Array) -> str:
    """Return x^(p - 1); where that is a pole, below a p of 1 at 0, it is 0: see `square_root`.

    A product where it can be one: Pow is slow, and of a negative base not a number to every engine.
    """
    if exponent.size == 1 and exponent == 2:
        return x
    if (exponent >= 1).all():
        return emit("Pow", x, emit.real(exponent - 1.0))
    pole = emit("Mul", emit.equal(x, emit.real(0)), emit.real(exponent < 1))
    finite = emit("Pow", emit("Add", x, pole), emit.real(exponent - 1.0))
    return emit("Mul", finite, emit("Sub", emit.real(1), pole))
