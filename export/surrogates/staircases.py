"""Staircases: their gradient is a surrogate, the slope of the ramp that they stand on.

Their own derivative is 0 wherever there is one, and would hide from an attack what lies behind. So rounding counts as
none (straight-through, Bengio et al. 2013); a step counts as a ramp about its threshold; the choice of the largest of
some scores as the softmax of equal ones.

A step's ramp is as wide as the values are: it rises over |u| <= 2 mean|u|, u = x - threshold, the mean over the image.
Binary networks are trained with |u| <= 1 behind a batch normalisation (Hubara et al. 2016), where most values pass,
and beyond which a unit is saturated; a width that follows the values is the same there, knows no scale that could
be chosen to be flat on, and leaves no image without a slope: some |u| is always below its mean. The mean is also the
scale by which sign(u) is nearest to u (Rastegari et al. 2016).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from export.graph.broadcast import sum_over, sum_to

if TYPE_CHECKING:
    from export.graph.graph import Emitter, Gradients, Node, Shape

WIDTH = 2.0
"""Half the width of a step's ramp, over the mean of |u|."""
LEAST = 1e-3
"""The narrowest ramp: where all u are 0, their slope is finite."""
ABOVE, BELOW = ("Greater", "GreaterOrEqual"), ("Less", "LessOrEqual")
ELEMENTWISE = ("Abs", "Add", "Clip", "Div", "Identity", "LeakyRelu", "Mul", "Neg", "Pow", "Relu", "Sqrt", "Sub")
"""What makes of each number another one by itself, with constants."""


def straight_through(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Round, Floor, Ceil: the gradient is handed on."""
    return {0: dy}


def cast(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Hand the gradient on, to whatever number; a truth value is the step away from 0."""
    if node.attribute("to", TensorProto.FLOAT) != TensorProto.BOOL:
        return {0: dy}
    x = emit.number(node, node.inputs[0])
    return {0: emit("Mul", dy, emit("Neg", _fall(emit, x, node.shape())))}


def sign(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Sign: the ramp from -1 to 1."""
    slope = _rise(emit, node.inputs[0], node.shape())
    return {0: emit("Mul", dy, emit("Add", slope, slope))}


def comparison(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Greater, Less and their kin: the ramp from 0 to 1 about where both are equal."""
    slope = _rise(emit, _difference(emit, node), node.output_shape)
    return _to_both(emit, node, emit("Mul", dy, slope), raised=0 if node.op in ABOVE else 1)


def equal(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Equal: a ramp up to 1 where both are equal, and down again."""
    if any(node.maker(position) in ("ArgMax", "ArgMin") for position in node.active):
        raise node.refused("it compares indices that depend on the image")
    slope = _fall(emit, _difference(emit, node), node.output_shape)
    return _to_both(emit, node, emit("Mul", dy, slope), raised=0)


def negation(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Not: 1 - a."""
    return {0: emit("Neg", dy)}


def connective(emit: Emitter, node: Node, dy: str) -> Gradients:
    """And, Or, Xor, as a b, a + b - a b and a + b - 2 a b."""
    gradients = {}
    for position in node.active:
        other = emit.cast(node.inputs[1 - position])
        if node.op != "And":
            other = emit("Sub", emit.real(1), emit("Mul", other, emit.real(2 if node.op == "Xor" else 1)))
        gradients[position] = sum_to(emit, emit("Mul", dy, other), node.output_shape, node.shape(position))
    return gradients


def one_hot(emit: Emitter, node: Node, dy: str) -> Gradients:
    """OneHot of an ArgMax: its gradient by the scores' places, as `choice` takes it, scaled by what on is above off."""
    source = node.source()
    if source is None or source.op not in ("ArgMax", "ArgMin"):
        raise node.refused("its indices come from neither ArgMax nor ArgMin")
    rank, chosen = len(node.output_shape), source.attribute("axis", 0) % len(source.shape())
    axis = node.attribute("axis", -1) % rank
    off, on = np.asarray(node.constant(2), np.float64)
    order = [other for other in range(rank) if other != axis]
    if source.attribute("keepdims", 1):
        single = order[chosen]
        dy = emit("Squeeze", dy, emit.integers([single]))
        order = [other - (other > single) for other in order if other != single]
        axis -= axis > single
    order.insert(chosen, axis)
    if int(node.constant(1).item()) != source.shape()[chosen]:
        raise node.refused("its depth is not the number of scores")
    return {0: emit("Mul", emit("Transpose", dy, perm=order), emit.real(on - off))}


def choice(emit: Emitter, node: Node, dy: str) -> Gradients:
    """ArgMax, ArgMin and Hardmax: dx = dy - mean(dy) over the places chosen from.

    That is softmax's slope where all scores are equal: where one leads, its own would fade, and with it the gradient.
    """
    if node.op != "Hardmax" and any(reader.op != "OneHot" for reader in node.readers()):
        raise node.refused("its indices are used as numbers")
    shape = node.shape()
    axis = node.attribute("axis", -1 if node.op == "Hardmax" else 0) % len(shape)
    size = shape[axis]
    if size is None:
        raise node.refused("it chooses from the batch")
    centred = emit("Sub", dy, sum_over(emit, dy, shape, [axis], 1 / size))
    return {0: emit("Neg", centred) if node.op == "ArgMin" else centred}


def led_by_slopes(node: Node) -> tuple[int, ...]:
    """Return which factors of a Mul lead on: a step of u times what each u alone makes has a slope, its own.

    As x times (x > 0), and sign(x) times |x|: both are continuous, and a ramp in the step's place would be wrong.
    """
    steps = [position for position in node.active if _is_gate(node, position)]
    return tuple(position for position in node.active if position not in steps) or node.active


def _is_gate(node: Node, position: int) -> bool:
    return any(_is_made_of(value, node, 1 - position) for value in _stepped(node.source(position)))


def _stepped(step: Node | None) -> tuple[str, ...]:
    """Return what a Sign, or a comparison that was cast, is a step of."""
    if step is not None and step.op == "Cast":
        step = step.source()
        kinds: tuple[str, ...] = (*ABOVE, *BELOW)
    else:
        kinds = ("Sign",)
    if step is None or step.op not in kinds:
        return ()
    return tuple(name for position, name in enumerate(step.inputs) if not step.is_constant(position))


def _is_made_of(value: str, node: Node, position: int) -> bool:
    """Whether an input is computed of `value` alone, each number of the one beside it."""
    while node.inputs[position] != value:
        source = node.source(position)
        if source is None or source.op not in ELEMENTWISE:
            return False
        varying = [index for index in range(len(source.inputs)) if source.has(index) and not source.is_constant(index)]
        if len({source.inputs[index] for index in varying}) != 1:
            return False
        node, position = source, varying[0]
    return True


def _difference(emit: Emitter, node: Node) -> str:
    return emit("Sub", *(emit.number(node, name) for name in node.inputs))


def _to_both(emit: Emitter, node: Node, gradient: str, *, raised: int) -> Gradients:
    """Give the gradient to the operand that raises the answer, its opposite to the other."""
    return {
        position: sum_to(
            emit, gradient if position == raised else emit("Neg", gradient), node.output_shape, node.shape(position)
        )
        for position in node.active
    }


def _rise(emit: Emitter, u: str, shape: Shape) -> str:
    """Return the slope of the ramp that rises by 1 over all of its width: 1 / (2 w) where |u| <= w, else 0."""
    width = _width(emit, u, shape)
    inside = emit.cast(emit("LessOrEqual", emit("Abs", u), width))
    return emit("Div", inside, emit("Add", width, width))


def _fall(emit: Emitter, u: str, shape: Shape) -> str:
    """Return the slope of the ramp that falls from 1 at u = 0 to both sides: -sign(u) / w where |u| <= w, else 0."""
    slope = _rise(emit, u, shape)
    return emit("Mul", emit("Neg", emit("Sign", u)), emit("Add", slope, slope))


def _width(emit: Emitter, u: str, shape: Shape) -> str:
    """Return w = WIDTH mean|u| over the image, or of each number where nothing but the batch is known of it."""
    axes = [axis for axis, size in enumerate(shape) if size is not None]
    count = math.prod(size for size in shape if size is not None)
    size = emit("Abs", u)
    mean = sum_over(emit, size, shape, axes, WIDTH / count) if axes else emit("Mul", size, emit.real(WIDTH))
    return emit("Max", mean, emit.real(LEAST))
