"""Operations that pick numbers out: Slice, Split, Gather with constant indices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from export.rules.matrix import along

if TYPE_CHECKING:
    from collections.abc import Sequence

    from export.graph.graph import Emitter, Gradients, Node, Shape

TO_THE_END = 2**31 - 1
"""The least end of a Slice that stands for 'all'."""


def slice_(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Put what was cut out back into zeros, axis by axis."""
    shape, cut = list(node.output_shape), node.shape()
    for axis, places in _cuts(node):
        dy = _put_back(emit, dy, tuple(shape), axis, places, node.sizes(cut[axis : axis + 1], 0)[0])
        shape[axis] = cut[axis]
    return {0: dy}


def split(emit: Emitter, node: Node, dys: Sequence[str | None]) -> Gradients:
    """Join the parts again; those that nothing read are zeros."""
    shape = node.shape()
    axis = node.attribute("axis", 0) % len(shape)
    sizes = [node.output_shape_of(i)[axis] for i in range(len(node.outputs))]
    total = shape[axis]
    if total is None or None in sizes:
        raise node.refused("it splits the batch")
    if None not in dys:
        return {0: emit("Concat", *[dy for dy in dys if dy], axis=axis)}
    starts = np.cumsum([0, *sizes])
    parts = [
        _put_back(emit, dy, node.output_shape_of(i), axis, list(range(starts[i], starts[i + 1])), total)
        for i, dy in enumerate(dys)
        if dy
    ]
    joined = parts[0]
    for part in parts[1:]:
        joined = emit("Add", joined, part)
    return {0: joined}


def gather(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Put every number back where it was taken from, adding up those that were taken twice."""
    shape, indices = node.shape(), node.constant(1)
    axis = node.attribute("axis", 0) % len(shape)
    size = shape[axis]
    if size is None:
        raise node.refused("it picks images out of the batch")
    places = [int(index) % size for index in indices.ravel()]
    picked = (*shape[:axis], len(places), *shape[axis + 1 :])
    if indices.ndim != 1:
        dy = emit.reshaped(dy, node.output_shape, picked)
    return {0: _put_back(emit, dy, picked, axis, places, size)}


def _cuts(node: Node) -> list[tuple[int, list[int]]]:
    """Return the axes that a Slice shortens or turns, each with the places that it keeps."""
    shape = node.shape()
    starts, ends = (np.atleast_1d(node.constant(i)).tolist() for i in (1, 2))
    axes = np.atleast_1d(node.constant(3)).tolist() if node.has(3) else list(range(len(starts)))
    steps = np.atleast_1d(node.constant(4)).tolist() if node.has(4) else [1] * len(starts)
    cuts = []
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        size = shape[axis]
        if size is None:
            if (start, step) != (0, 1) or end < TO_THE_END:
                raise node.refused("it cuts the batch")
            continue
        places = list(range(*slice(start, end, step).indices(size)))
        if places != list(range(size)):
            cuts.append((axis % len(shape), places))
    return cuts


def _put_back(emit: Emitter, dy: str, shape: Shape, axis: int, places: list[int], size: int) -> str:
    """Return zeros with dy, of `shape`, at `places` of an axis of `size`."""
    step = places[1] - places[0] if len(places) > 1 else 1
    if step < 1 or places != list(range(places[0], places[0] + step * len(places), step)):
        return along(emit, dy, len(shape), axis, np.eye(size)[places])
    if step > 1:
        apart = _padded(emit, emit("Unsqueeze", dy, emit.integers([axis + 1])), len(shape) + 1, axis + 1, 0, step - 1)
        between = (*shape[: axis + 1], step, *shape[axis + 1 :])
        dy = emit.reshaped(apart, between, (*shape[:axis], step * len(places), *shape[axis + 1 :]))
    return _padded(emit, dy, len(shape), axis, places[0], size - places[0] - step * len(places))


def _padded(emit: Emitter, value: str, rank: int, axis: int, begin: int, end: int) -> str:
    """Put zeros before and after along one axis; a negative number cuts off."""
    if begin == end == 0:
        return value
    pads = [0] * 2 * rank
    pads[axis], pads[rank + axis] = begin, end
    return emit("Pad", value, emit.integers(pads))
