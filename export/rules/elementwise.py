"""One number to one number: Abs, Neg, Exp, Log, Sqrt, Pow, Reciprocal, Cast; and what is flat wherever it is smooth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import helper

from export.rules.broadcast import sum_to

if TYPE_CHECKING:
    from export.graph.graph import Emitter, Node
    from export.rules import Gradients


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
    """Return dx = dy / (2 y)."""
    return {0: emit("Div", dy, emit("Add", node.outputs[0], node.outputs[0]))}


def reciprocal(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Return dx = -dy y^2."""
    y = node.outputs[0]
    return {0: emit("Neg", emit("Mul", dy, emit("Mul", y, y)))}


def power(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Differentiate x^p with a constant exponent: dx = dy p x^(p-1)."""
    if 1 in node.active:
        raise node.refused("its exponent depends on the image")
    x, exponent = node.inputs[0], node.constant(1)
    # A product where it can be one: Pow is slow, and of a negative base not a number to every engine.
    lower = x if exponent.size == 1 and exponent == 2 else emit("Pow", x, emit.real(exponent - 1.0))
    slope = emit("Mul", lower, emit.real(exponent))
    return {0: sum_to(emit, emit("Mul", dy, slope), node.output_shape, node.shape())}


def cast(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Hand the gradient on, in the type of the input."""
    return {0: emit("Cast", dy, to=helper.np_dtype_to_tensor_dtype(node.dtype()))}


def flat(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Round, Floor, Ceil and Sign: 0 wherever there is a derivative; the checks of a verdict notice the blindness."""
    return {0: emit("Mul", dy, emit.real(0))}
