"""Reductions over axes of an image: ReduceMean, ReduceMax and their kin, norms, CumSum, and GlobalMaxPool."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from export.graph.broadcast import sum_over
from export.rules.elementwise import quotient
from export.rules.matrix import along

if TYPE_CHECKING:
    from export.graph.graph import Emitter, Gradients, Node


def reduce_mean(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Give every averaged value its share."""
    return _shared(emit, node, dy, averaged=True)


def reduce_sum(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Give every summed value the whole gradient."""
    return _shared(emit, node, dy, averaged=False)


def reduce_extreme(emit: Emitter, node: Node, dy: str) -> Gradients:
    """ReduceMax and ReduceMin: to the values that are the extreme; those that tie share, as in torch's amax."""
    axes = reduced_axes(node)
    if not axes:
        return {0: dy}
    return _to_equals(emit, node, axes, _kept(emit, node, axes, dy), _kept(emit, node, axes, node.outputs[0]))


def global_max_pool(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Give the gradient to the largest pixel of each channel; those that tie share."""
    return _to_equals(emit, node, list(range(2, len(node.shape()))), dy, node.outputs[0])


def reduce_l2(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Return dx = dy x / y; 0 where the norm is 0, as torch has it."""
    axes = reduced_axes(node)
    y = _kept(emit, node, axes, node.outputs[0])
    return {0: emit("Mul", node.inputs[0], quotient(emit, _kept(emit, node, axes, dy), y))}


def reduce_log_sum_exp(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Return dx = dy exp(x - y): softmax."""
    axes = reduced_axes(node)
    y = _kept(emit, node, axes, node.outputs[0])
    return {0: emit("Mul", _kept(emit, node, axes, dy), emit("Exp", emit("Sub", node.inputs[0], y)))}


def cumulative_sum(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Sum from the other end."""
    shape = node.shape()
    axis = int(node.constant(1).item()) % len(shape)
    if shape[axis] is None:
        raise node.refused("it sums over the batch")
    size = node.sizes(shape[axis : axis + 1], 0)[0]
    before = np.tri(size, k=-node.attribute("exclusive", 0))
    return {0: along(emit, dy, len(shape), axis, before.T if node.attribute("reverse", 0) else before)}


def reduced_axes(node: Node) -> list[int]:
    """Return the axes that a node reduces, in order; none where it changes nothing.

    Raises:
        BadModel: the batch is among them.

    """
    shape = node.shape()
    given = node.constant(1) if node.has(1) else node.attribute("axes", [])
    axes = sorted({int(axis) % len(shape) for axis in given})
    if not axes and not node.attribute("noop_with_empty_axes", 0):
        axes = list(range(len(shape)))
    if any(shape[axis] is None for axis in axes):
        raise node.refused("it reduces over the batch")
    return axes


def _kept(emit: Emitter, node: Node, axes: list[int], value: str) -> str:
    """Return a value of the output's shape with the reduced axes as 1."""
    return value if node.attribute("keepdims", 1) or not axes else emit("Unsqueeze", value, emit.integers(axes))


def _shared(emit: Emitter, node: Node, dy: str, *, averaged: bool) -> Gradients:
    axes, shape = reduced_axes(node), node.shape()
    if not axes:
        return {0: dy}
    sizes = node.sizes(tuple(size if axis in axes else 1 for axis, size in enumerate(shape)), axes[0])
    share = 1 / math.prod(sizes) if averaged else 1.0
    return {0: emit("Mul", _kept(emit, node, axes, dy), emit.real(np.full(sizes, share)))}


def _to_equals(emit: Emitter, node: Node, axes: list[int], dy: str, y: str) -> Gradients:
    chosen = emit.equal(node.inputs[0], y)
    ties = sum_over(emit, chosen, node.shape(), axes)
    return {0: emit("Mul", chosen, emit("Div", dy, ties))}
