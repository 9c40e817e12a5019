"""Resize: along each axis a fixed matrix, read off the operation itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from export.rules.matrix import along

if TYPE_CHECKING:
    from export.graph.graph import Array, Emitter, Gradients, Node

REST = ("coordinate_transformation_mode", "mode", "nearest_mode", "cubic_coeff_a", "exclude_outside", "antialias")


def resize(emit: Emitter, node: Node, dy: str) -> Gradients:
    """Multiply by the transposed matrix of each axis that changes (nearest, linear and cubic are separable)."""
    if node.attribute("coordinate_transformation_mode", b"") == b"tf_crop_and_resize":  # no other mode reads the region
        raise node.refused("it crops")
    before, after = node.sizes(node.shape()), node.sizes(node.output_shape)
    scales = _scales(node)
    for axis, (small, large) in enumerate(zip(before, after, strict=True), start=1):
        if small != large:
            dy = along(emit, dy, len(before) + 1, axis, _matrix(node, small, large, scales.get(axis)).T)
    return {0: dy}


def _scales(node: Node) -> dict[int, float]:
    """Return the factor of each axis that it is given for; an empty constant, as older opsets write it, is none."""
    if not node.has(2) or node.constant(2).size == 0:
        return {}
    rank = len(node.shape())
    axes = [axis % rank for axis in node.attribute("axes", range(rank))]
    return dict(zip(axes, node.constant(2).tolist(), strict=True))


def _matrix(node: Node, before: int, after: int, scale: float | None) -> Array:
    """Return [before, after]: row i is what the operation makes of a line that is 1 at i and 0 elsewhere."""
    attributes = {name: node.attribute(name, None) for name in REST}
    given, values = ("scales", np.asarray([scale])) if scale else ("sizes", np.asarray([after]))
    names = ["x", "", "scales" if scale else "", "" if scale else "sizes"]
    single = helper.make_node(
        "Resize", names, ["y"], axes=[2], **{name: value for name, value in attributes.items() if value is not None}
    )
    graph = helper.make_graph(
        [single],
        "resize",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [before, 1, before])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [before, 1, after])],
        [helper.make_tensor(given, TensorProto.FLOAT if scale else TensorProto.INT64, [1], values)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    (rows,) = ReferenceEvaluator(model).run(None, {"x": np.eye(before, dtype=np.float32)[:, None, :]})
    return np.asarray(rows)[:, 0, :]
