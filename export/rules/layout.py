"""Operations that move numbers and change none: Reshape and its kin, Transpose, Concat, Pad, DepthToSpace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from export.graph.graph import Emitter, Gradients, Node


def reshape(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Reshape, Flatten, Squeeze and Unsqueeze: back to the shape of the input."""
    shape = node.shape()
    if shape.count(None) > 1:
        raise node.refused(f"the shape {list(shape)} of its input is known only at run time")
    return {0: emit.reshaped(dy, node.output_shape, shape)}


def transpose(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Transpose by the inverse permutation."""
    permutation = node.attribute("perm", list(range(len(node.shape())))[::-1])
    return {0: emit("Transpose", dy, perm=[int(axis) for axis in np.argsort(permutation)])}


def concat(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Split along the axis, and give each input its part."""
    axis = node.attribute("axis", 0) % len(node.output_shape)
    sizes = [node.shape(i)[axis] for i in range(len(node.inputs))]
    if None in sizes:
        raise node.refused("it joins batches")
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


def depth_to_space(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Gather the blocks again: SpaceToDepth, by Reshape and Transpose where the channels are in the order CRD."""
    block = node.attribute("blocksize", None)
    if node.attribute("mode", b"DCR") == b"DCR":
        return {0: emit("SpaceToDepth", dy, blocksize=block)}
    channels, height, width = node.sizes(node.output_shape)
    apart = emit.reshape(dy, (None, channels, height // block, block, width // block, block))
    moved = emit("Transpose", apart, perm=[0, 1, 3, 5, 2, 4])
    return {0: emit.reshape(moved, node.shape())}


def space_to_depth(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Spread the blocks again."""
    return {0: emit("DepthToSpace", dy, blocksize=node.attribute("blocksize", None))}
