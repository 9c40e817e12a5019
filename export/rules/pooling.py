"""GlobalAveragePool, AveragePool, MaxPool."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from export.rules.window import Window, window_of

if TYPE_CHECKING:
    from export.graph.graph import Array, Emitter, Gradients, Node

BELOW_ALL = -1e30
"""Padding that no activation is under: in float16 its least number. Finite, for it is multiplied by zeros."""


def global_average_pool(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Give every pixel its share."""
    sizes = node.sizes(node.shape(), 2)
    return {0: emit("Mul", dy, emit.real(np.full(sizes, 1 / math.prod(sizes))))}


def average_pool(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Divide by the number of pixels each window averaged, then spread by a depthwise kernel of ones."""
    window = window_of(node, tuple(node.attribute("kernel_shape", None)))
    channels = node.sizes(node.shape())[0]
    share = emit.real(1 / _pixels_seen(window, node))
    ones = emit.real(np.ones((channels, 1, *window.kernel)))
    return {0: window.spread(emit, emit("Mul", dy, share), ones, channels)}


def max_pool(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Give each window's gradient to its first largest pixel (TensorRT knows no MaxPool with Indices).

    A depthwise convolution with one-hot kernels lays every window out along a new axis, ArgMax finds the
    largest, the transposed convolution puts its gradient back.
    """
    if node.attribute("storage_order", 0):
        raise node.refused("its indices are in column-major order")
    window = window_of(node, tuple(node.attribute("kernel_shape", None)))
    channels = node.sizes(node.shape())[0]
    picks = emit.real(_one_hot_kernels(window.kernel, channels))
    count = math.prod(window.kernel)
    laid_out = emit(
        "Conv",
        _padded(emit, emit.number(node, node.inputs[0]), window),
        picks,
        group=channels,
        kernel_shape=list(window.kernel),
        strides=list(window.strides),
        dilations=list(window.dilations),
    )
    windows = emit.reshape(laid_out, (None, channels, count, *window.output))
    chosen = emit.one_hot(emit("ArgMax", windows, axis=2, keepdims=0), count, axis=2)
    routed = emit("Mul", chosen, emit("Unsqueeze", dy, emit.integers([2])))
    flat = emit.reshape(routed, (None, channels * count, *window.output))
    return {0: window.spread(emit, flat, picks, channels)}


def _pixels_seen(window: Window, node: Node) -> Array:
    """Return how many pixels each window of an AveragePool divides by: with padding, or image pixels only."""
    with_padding = node.attribute("count_include_pad", 0)
    pads = node.attribute("pads", None) or [*window.begin, *(max(end, 0) for end in window.end)]
    seen = np.ones(window.output)
    for axis in range(len(window.image)):
        low, high = 0, window.image[axis]
        if with_padding:
            low, high = -pads[axis], high + pads[axis + len(window.image)]
        starts = np.arange(window.output[axis]) * window.strides[axis] - window.begin[axis]
        taps = starts[:, None] + np.arange(window.kernel[axis]) * window.dilations[axis]
        counts = ((taps >= low) & (taps < high)).sum(axis=1)
        seen *= counts.reshape(-1, *[1] * (len(window.image) - axis - 1))
    return seen


def _one_hot_kernels(kernel: tuple[int, ...], channels: int) -> Array:
    """Return [channels * n, 1, *kernel]: for each channel, one kernel for each of the n places."""
    count = math.prod(kernel)
    return np.tile(np.eye(count).reshape(count, 1, *kernel), (channels, 1, *[1] * len(kernel)))


def _padded(emit: Emitter, x: str, window: Window) -> str:
    """Pad so that every window lies inside; where it leaves pixels unseen, cut those off."""
    if not any((*window.begin, *window.end)):
        return x
    pads = emit.integers([0, 0, *window.begin, 0, 0, *window.end])
    return emit("Pad", x, pads, emit.real(BELOW_ALL))
