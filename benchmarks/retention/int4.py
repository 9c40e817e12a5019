"""Weights in four bits: what ONNX Runtime runs of INT4, and what it is worth under attack."""

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from export.graph.passes import Prepared, prepare, to_bytes
from export.precision.half import WEIGHTED

LARGEST = 7
"""Of the integers -7 to 7: symmetric, so that 0 stays 0."""
INT4_OPSET = 21
"""The first operator set that stores four bits."""


def in_int4(forward: Prepared) -> Prepared:
    """Return a graph whose convolutions and matrix products weigh with integers of -7 to 7, one scale a channel.

    Activations stay float32, so its slopes are true. The integers lie in int8 tensors, since the graphs of a bundle
    have an opset below 21: `stored_in_int4` is the same classifier with four bits a weight.

    Args:
        forward: in float32.

    """
    model = ModelProto()
    model.CopyFrom(forward.model)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if node.op_type in WEIGHTED and node.input[1] in stored:
            name = node.input[1]
            axis = channel_axis(node, len(stored[name].dims))
            integers, scale = rounded(numpy_helper.to_array(stored[name]), axis)
            parts = {f"{name}/int4": integers, f"{name}/scale": scale, f"{name}/zero": np.zeros(scale.shape, np.int8)}
            model.graph.initializer.extend(numpy_helper.from_array(array, part) for part, array in parts.items())
            node.input[1] = f"{name}/real"
            nodes.append(
                helper.make_node("DequantizeLinear", [*parts], [f"{name}/real"], name=f"{name}/real", axis=axis)
            )
        nodes.append(node)
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return prepare(model)


def channel_axis(node: NodeProto, rank: int) -> int:
    """Return which axis of the weights numbers the output channels."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        return 0 if transposed else 1
    return 1 if node.op_type == "ConvTranspose" else rank - 1


def rounded(weights: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return the nearest integers of -7 to 7, and the scale of each channel along `axis`; 1 where all are 0."""
    others = tuple(other for other in range(weights.ndim) if other != axis)
    largest = np.abs(weights).max(axis=others)
    scale = np.where(largest > 0, largest / LARGEST, 1).astype(np.float32)
    steps = weights / np.expand_dims(scale, others)
    return np.clip(np.round(steps), -LARGEST, LARGEST).astype(np.int8), scale


def stored_in_int4(forward: Prepared) -> bytes:
    """Return what `in_int4` made as an ONNX model of opset 21 whose integers take four bits each."""
    model = ModelProto()
    model.CopyFrom(forward.model)
    for tensor in model.graph.initializer:
        if tensor.name.endswith(("/int4", "/zero")):
            values = numpy_helper.to_array(tensor)
            packed = helper.make_tensor(tensor.name, TensorProto.INT4, values.shape, values.flatten().tolist())
            tensor.CopyFrom(packed)
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = INT4_OPSET
    model.ir_version = max(model.ir_version, 10)
    return to_bytes(model)
