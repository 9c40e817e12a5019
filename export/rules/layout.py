"""Operations that move numbers and change none: Reshape, Flatten, Transpose, Concat, Pad."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from export.graph import Emitter, Node
    from export.rules import Gradients


def reshape(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Reshape and Flatten: back to the shape of the input."""
    shape = node.shape()
    if shape.count(None) > 1:
        raise node.refused(f"the shape {list(shape)} of its input is known only at run time")
    keeps_batch = node.output_shape[0] is None and shape[0] is None
    return {0: emit.reshape(dy, shape) if keeps_batch else emit.regroup(dy, shape)}


def transpose(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Transpose by the inverse permutation."""
    permutation = node.attribute("perm", list(range(len(node.shape())))[::-1])
    return {0: emit("Transpose", dy, perm=[int(axis) for axis in np.argsort(permutation)])}


def concat(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Split along the axis, and give each input its part."""
    axis = node.attribute("axis", 0) % len(node.output_shape)
    if axis == 0:
        raise node.refused("it joins batches")
    sizes = [node.sizes(node.shape(i), axis)[0] for i in range(len(node.inputs))]
    parts = emit.many("Split", [dy, emit.integers(sizes)], len(sizes), axis=axis)
    return {i: parts[i] for i in node.active}


def pad(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Pad by a constant: take the padding off again (and put back what a negative padding cut off)."""
    if node.attribute("mode", b"constant") != b"constant":
        raise node.refused("only constant padding is differentiated")
    inputs = [dy, emit.integers(-node.constant(1))]
    if node.has(3):
        inputs += ["", emit.integers(node.constant(3))]
    return {0: emit("Pad", *inputs)}
