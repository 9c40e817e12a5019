"""ONNX Runtime's convolutions in the layout of one processor: channels in blocks, as `ORT_ENABLE_ALL` saves them.

A value's shape is still [N, C, H, W], C filled up with zeros to whole blocks; that only the memory is in another order
does not show in the operations between. Weights lie in the file as they lie in memory, filled up likewise.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper

from export.standard import fused
from runtime.backends.providers import open_plain
from runtime.session import GraphFacts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from export.graph.graph import Array, Emitter
    from export.standard.part import Part, Writing

NCHWC = "com.microsoft.nchwc"
"""The domain of these operations."""
WINDOW = ("auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides")


@cache
def channels_in_a_block() -> int:
    """Return how many channels make a block on this processor, by whose blocks ONNX Runtime reads every file."""
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 1, 1])
    filled = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    node = helper.make_node("ReorderInput", ["x"], ["y"], domain=NCHWC)
    graph = helper.make_graph([node], "one", [given], [filled])
    imports = [helper.make_opsetid("", 18), helper.make_opsetid(NCHWC, 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    session = open_plain(model.SerializeToString(), GraphFacts())
    (answer,) = session.run(None, {"x": np.ones((1, 4, 1, 1), np.float32)})
    return int(answer.shape[1])


def convolution(emit: Emitter, part: Part) -> str | None:
    """Conv, the sum with another value, an activation."""
    stored = part.constant(1)
    if stored is None:
        return None
    return fused.convolution(emit, part, emit.constant(_in_order(stored, channels_in_a_block())))


def reorder_input(emit: Emitter, part: Part) -> str | None:
    """Put channels first, and fill them up to whole blocks."""
    sizes, last = part.sizes(0), part.attribute("channels_last", 0)
    channels = None if sizes is None else sizes[-1 if last else 1]
    if channels is None:
        return None
    x = emit("Transpose", part.input(0), perm=[0, 3, 1, 2]) if last else part.input(0)
    missing = -channels % channels_in_a_block()
    return emit("Pad", x, emit.integers([0] * 5 + [missing, 0, 0]))


def reorder_output(emit: Emitter, part: Part) -> str | None:
    """Take what was filled up away, and put channels last where that is asked for."""
    bounds = [emit.integers([each]) for each in (0, part.attribute("channels"), 1)]
    y = emit("Slice", part.input(0), *bounds)
    return emit("Transpose", y, perm=[0, 2, 3, 1]) if part.attribute("channels_last", 0) else y


def upsample(emit: Emitter, part: Part) -> str | None:
    """Resize by whole numbers."""
    mode = part.attribute("mode", b"nearest")
    how = part.attribute("coordinate_transformation_mode", b"half_pixel") if mode == b"linear" else "asymmetric"
    scales = emit.real(part.attribute("scales"))
    return emit(
        "Resize", part.input(0), "", scales, mode=mode, coordinate_transformation_mode=how, nearest_mode="floor"
    )


def alike(op: str, *names: str) -> Writing:
    """Return the standard's operation of the same name, with those of its attributes."""
    return lambda emit, part: emit(op, part.input(0), **part.attributes(*names))


OF_BLOCKS: Mapping[str, Writing] = {
    "AveragePool": alike("AveragePool", *WINDOW, "count_include_pad"),
    "Conv": convolution,
    "GlobalAveragePool": alike("GlobalAveragePool"),
    "GlobalMaxPool": alike("GlobalMaxPool"),
    "MaxPool": alike("MaxPool", *WINDOW),
    "ReorderInput": reorder_input,
    "ReorderOutput": reorder_output,
    "Upsample": upsample,
}


def _in_order(stored: Array, block: int) -> Array:
    """Return weights [O, I, h, w] from memory's order: blocks of O, and of I where it fills them, innermost."""
    outputs, inputs, *kernel = stored.shape
    if inputs % block:
        apart = stored.reshape(outputs // block, inputs, *kernel, block)
        return np.asarray(apart.transpose(0, 4, 1, 2, 3).reshape(stored.shape))
    apart = stored.reshape(outputs // block, inputs // block, *kernel, block, block)
    return np.asarray(apart.transpose(0, 5, 1, 4, 2, 3).reshape(stored.shape))
