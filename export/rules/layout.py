"""Operations that move numbers and change none: Reshape and its kin, Transpose, Concat, Pad, Tile, DepthToSpace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from export.rules.matrix import along

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
    """Take the padding off again (and put back what a negative padding cut off); where it repeats pixels, add it up."""
    mode = node.attribute("mode", b"constant").decode()
    if mode != "constant":
        return _folded(emit, node, dy, mode)
    inputs = [dy, emit.integers(-node.constant(1))]
    if node.has(3):
        inputs += ["", emit.integers(node.constant(3))]
    return {0: emit("Pad", *inputs)}


def _folded(emit: Emitter, node: Node, dy: str, mode: str) -> Gradients:
    """Multiply along each padded axis by where its places come from."""
    shape = node.shape()
    pads = np.asarray(node.constant(1))
    axes = node.constant(3).tolist() if node.has(3) else range(len(shape))
    for axis, begin, end in zip(axes, *np.split(pads, 2), strict=True):
        if begin == end == 0:
            continue
        (size,) = node.sizes(shape[axis % len(shape) :][:1], 0)
        cut = slice(max(-begin, 0), size - max(-end, 0))
        places = np.pad(np.arange(size)[cut], (max(begin, 0), max(end, 0)), mode=mode)  # type: ignore[call-overload]
        dy = along(emit, dy, len(shape), axis % len(shape), np.eye(size)[places])
    return {0: dy}


def tile(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Add up what was repeated."""
    shape, repeats = node.shape(), node.constant(1).tolist()
    for axis, times in enumerate(repeats):
        if times != 1:
            (size,) = node.sizes(shape[axis : axis + 1], 0)
            dy = along(emit, dy, len(shape), axis, np.tile(np.eye(size), (times, 1)))
    return {0: dy}


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
