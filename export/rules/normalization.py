"""Normalisation by an image's own statistics: layers, instances, neighbouring channels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from export.graph.broadcast import sum_over

if TYPE_CHECKING:
    from export.graph.graph import Emitter, Gradients, Node, Shape


def layer_normalization(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Normalise over the axes from `axis` on, then scale."""
    shape = node.shape()
    axis = node.attribute("axis", -1) % len(shape)
    scaled = emit("Mul", dy, node.inputs[1])
    return {0: _backward(emit, node, node.inputs[0], scaled, shape, axis)}


def instance_normalization(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Normalise each channel over its pixels, then scale."""
    shape = node.shape()
    scale = node.constant(1).reshape(-1, *[1] * (len(shape) - 2))
    return {0: _backward(emit, node, node.inputs[0], emit("Mul", dy, emit.real(scale)), shape, 2)}


def local_response_normalization(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Differentiate y = x d^-beta, d = bias + alpha / size * (sum of x^2 over neighbouring channels)."""
    x, channels = node.inputs[0], node.sizes(node.shape())[0]
    size, beta = node.attribute("size", None), node.attribute("beta", 0.75)
    factor = node.attribute("alpha", 1e-4) / size
    offset = np.arange(channels) - np.arange(channels)[:, None]
    near = (offset >= -((size - 1) // 2)) & (offset <= size // 2)

    def summed(value: str, neighbours: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> str:
        return emit("Conv", value, emit.real(neighbours[:, :, None, None]), kernel_shape=[1, 1])

    squares = emit("Mul", summed(emit("Mul", x, x), near), emit.real(factor))
    d = emit("Add", squares, emit.real(node.attribute("bias", 1.0)))
    direct = emit("Mul", dy, emit("Pow", d, emit.real(-beta)))
    weighed = summed(emit("Div", emit("Mul", direct, x), d), near.T)
    return {0: emit("Sub", direct, emit("Mul", emit("Mul", x, weighed), emit.real(2 * beta * factor)))}


def _backward(emit: Emitter, node: Node, x: str, g: str, shape: Shape, first: int) -> str:
    """Return r (g - mean(g) - n mean(g n)): n is x normalised over the axes from `first` on, r one over its deviation.

    Means are matrix products: see `export.graph.broadcast.sum_over`.
    """
    axes = list(range(first, len(shape)))
    share = 1 / math.prod(node.sizes(shape, first))

    def mean(value: str) -> str:
        return sum_over(emit, value, shape, axes, share)

    centred = emit("Sub", x, mean(x))
    variance = emit("Add", mean(emit("Mul", centred, centred)), emit.real(node.attribute("epsilon", 1e-5)))
    r = emit("Reciprocal", emit("Sqrt", variance))
    n = emit("Mul", centred, r)
    along = emit("Mul", n, mean(emit("Mul", g, n)))
    return emit("Mul", r, emit("Sub", emit("Sub", g, mean(g)), along))
