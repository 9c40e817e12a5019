"""Conv, ConvTranspose and BatchNormalization, with constant weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from export.rules.window import Window, window_of

if TYPE_CHECKING:
    from export.graph.graph import Array, Emitter, Gradients, Node


def convolution(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Emit the transposed convolution; at stride 1 as a Conv with turned weights, which runs faster."""
    weight, group = node.constant(1), node.attribute("group", 1)
    window = window_of(node, weight.shape[2:])
    if set(window.strides) == {1} and _fits_convolution(window):
        return {0: _turned(emit, window, dy, weight, group)}
    return {0: window.spread(emit, dy, node.inputs[1], group)}


def transposed_convolution(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Emit the convolution that it transposes."""
    if node.attribute("auto_pad", b"NOTSET") != b"NOTSET" or node.attribute("output_shape", None):
        raise node.refused("its padding depends on the shape of its output")
    kernel = node.constant(1).shape[2:]
    ones = [1] * len(kernel)
    return {
        0: emit(
            "Conv",
            dy,
            node.inputs[1],
            group=node.attribute("group", 1),
            kernel_shape=list(kernel),
            strides=node.attribute("strides", ones),
            dilations=node.attribute("dilations", ones),
            pads=node.attribute("pads", [0, 0] * len(kernel)),
        )
    }


def batch_normalization(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Differentiate inference: y = scale (x - mean) / sqrt(variance + epsilon) + bias, per channel."""
    if node.attribute("training_mode", 0):
        raise node.refused("it is in training mode")
    scale, variance = node.constant(1), node.constant(4)
    slope = scale / np.sqrt(variance + node.attribute("epsilon", 1e-5))
    return {0: emit("Mul", dy, emit.real(slope.reshape(-1, *[1] * (len(node.shape()) - 2))))}


def _fits_convolution(window: Window) -> bool:
    """Whether the padding is at most what turned weights need (it is, in any sensible network)."""
    return all(0 <= b < e and n < e for b, n, e in zip(window.begin, window.end, window.extent, strict=True))


def _turned(emit: Emitter, window: Window, dy: str, weight: Array, group: int) -> str:
    """Convolve with the weights mirrored in space, inputs and outputs swapped within each group."""
    outputs, inputs = weight.shape[:2]
    grouped = weight.reshape(group, outputs // group, inputs, *window.kernel)
    turned = np.flip(grouped.swapaxes(1, 2), tuple(range(3, grouped.ndim)))
    return emit(
        "Conv",
        dy,
        emit.real(turned.reshape(group * inputs, outputs // group, *window.kernel)),
        group=group,
        kernel_shape=list(window.kernel),
        dilations=list(window.dilations),
        pads=[
            extent - 1 - padding
            for paddings in (window.begin, window.end)
            for extent, padding in zip(window.extent, paddings, strict=True)
        ],
    )
