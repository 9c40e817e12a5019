"""Operations whose places are known at run time: GatherElements, GatherND, ScatterElements, ScatterND, TopK.

What was gathered is scattered back, and the reverse. Places have no derivative: where the numbers that they pick have
one, that alone counts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from export.graph.graph import Emitter, Gradients, Node

ADDITIVE = (b"none", b"add")


def gather_elements(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Add every number to the place that it was taken from."""
    axis = node.attribute("axis", 0) % len(node.shape())
    return {0: _put_back(emit, node, dy, node.inputs[1], axis)}


def gather_nd(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Add every slice to the place that it was taken from, by the number of that place in one row.

    Not by ScatterND: ONNX Runtime's adds in several threads, and loses some of what falls on one place.
    """
    shape = node.shape()
    axes = node.attribute("batch_dims", 0) + node.sizes(node.shape(1)[-1:], 0)[0]
    places, slices = shape[:axes], shape[axes:]
    if None in slices:
        rows, count = math.prod(node.sizes(places, 0)), None
        taken = math.prod(node.sizes(node.shape(1)[:-1], 0))
    else:
        rows, count, taken = None, math.prod(node.sizes(slices, 0)), None
    flat = emit.regroup(dy, (taken, count))
    number = emit("Expand", emit.regroup(_number(emit, node, axes), (None, 1)), emit("Shape", flat))
    zeros = emit.regroup(_zeros_like(emit, node.inputs[0]), (rows, count))
    back = emit("ScatterElements", zeros, number, flat, axis=0, reduction="add")
    return {0: emit("Reshape", back, emit("Shape", node.inputs[0]))}


def _number(emit: Emitter, node: Node, axes: int) -> str:
    """Return GatherND's places, numbered along the first `axes` as one row; those of batches count themselves."""
    batches, rank = node.attribute("batch_dims", 0), len(node.shape(1)) - 1
    sizes, number = emit("Shape", node.inputs[0]), emit.integers(0)
    for axis in range(axes):
        size = emit("Gather", sizes, emit.integers(axis))
        if axis < batches:
            counted = emit("Range", emit.integers(0), size, emit.integers(1))
            place = emit("Reshape", counted, emit.integers([-1 if each == axis else 1 for each in range(rank)]))
        else:
            given = emit("Gather", node.inputs[1], emit.integers(axis - batches), axis=-1)
            from_end = emit("Less", given, emit.integers(0))
            place = emit("Where", from_end, emit("Add", given, size), given)
        number = emit("Add", emit("Mul", number, size), place)
    return number


def scatter_elements(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Give updates what lies at their places, and what was under them nothing, but where they were added."""
    axis, places = node.attribute("axis", 0), node.inputs[1]
    gradients = {}
    if 0 in node.active:
        nothing = _zeros_like(emit, node.inputs[2])
        gradients[0] = dy if _adds(node) else emit("ScatterElements", dy, places, nothing, axis=axis)
    if 2 in node.active:
        gradients[2] = emit("GatherElements", dy, places, axis=axis)
    return gradients


def scatter_nd(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Give updates what lies at their places, and what was under them nothing, but where they were added."""
    places = node.inputs[1]
    gradients = {}
    if 0 in node.active:
        gradients[0] = dy if _adds(node) else emit("ScatterND", dy, places, _zeros_like(emit, node.inputs[2]))
    if 2 in node.active:
        gradients[2] = emit("GatherND", dy, places)
    return gradients


def top_k(emit: Emitter, node: Node, dy: str) -> Gradients:
    """TopK's values: each back to where it was."""
    shape = node.shape()
    axis = node.attribute("axis", -1) % len(shape)
    if shape[axis] is None:
        raise node.refused("it picks images out of the batch")
    order = {name: node.attribute(name, 1) for name in ("largest", "sorted")}
    _, places = emit.many("TopK", node.inputs, 2, axis=axis, **order)
    return {0: _put_back(emit, node, dy, places, axis)}


def led_by_numbers(node: Node) -> tuple[int, ...]:
    """Return which inputs lead on: all but the places, where there are others."""
    return tuple(position for position in node.active if position != 1) or node.active


def _adds(node: Node) -> bool:
    reduction = node.attribute("reduction", b"none")
    if reduction not in ADDITIVE:
        raise node.refused(f"it reduces by {reduction.decode()!r}")
    return bool(reduction == b"add")


def _put_back(emit: Emitter, node: Node, dy: str, places: str, axis: int) -> str:
    zeros = _zeros_like(emit, node.inputs[0])
    return emit("ScatterElements", zeros, places, dy, axis=axis, reduction="add")


def _zeros_like(emit: Emitter, value: str) -> str:
    return emit("Expand", emit.real(0), emit("Shape", value))
