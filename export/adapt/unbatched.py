"""Adds a batch axis to a model that takes one image without it, if the model begins by adding that axis itself."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from onnx import numpy_helper

from export.adapt.interface import image_input
from runtime.errors import BadModel

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


def behind_batch(model: ModelProto, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the shape of one image after the model adds a batch axis; None if it adds none.

    Args:
        model: takes one image of `shape`; opset 13 or later.
        shape: of that image.

    """
    name, constants = image_input(model).name, _constants(model)
    added = {_behind(node, shape, constants) for node in model.graph.node if name in node.input}
    return added.pop() if len(added) == 1 else None


def give_batch(model: ModelProto, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Let a model take [1, ...], in place: what adds that axis to its image and removes it at its end does no more.

    Args:
        model: takes one image of `shape`; opset 13 or later.
        shape: of that image.

    Returns:
        See `behind_batch`.

    Raises:
        BadModel: the model does not begin by adding the axis, with Unsqueeze or Reshape.

    """
    info, inner, constants = image_input(model), behind_batch(model, shape), _constants(model)
    if inner is None:
        raise BadModel(
            f"the input {info.name!r} has no axis for the batch, and the model does not begin by adding one",
            hint="export it with an input of [N, C, H, W]",
        )
    readers = [node for node in model.graph.node if info.name in node.input]
    outputs = {each.name for each in model.graph.output}
    ends = [node for node in model.graph.node if node.op_type == "Squeeze" and outputs & set(node.output)]
    for node in [*readers, *(node for node in ends if _second(node, constants) == [0])]:
        node.op_type = "Identity"
        del node.input[1:], node.attribute[:]
    del info.type.tensor_type.shape.dim[:]
    for size in (1, *inner):
        info.type.tensor_type.shape.dim.add().dim_value = size
    return inner


def _behind(node: NodeProto, shape: tuple[int, ...], constants: dict[str, Any]) -> tuple[int, ...] | None:
    """Return the shape of one image behind a node that puts [1] before it; None behind another node."""
    numbers = _second(node, constants)
    if node.op_type == "Unsqueeze" and numbers:
        rank = len(shape) + len(numbers)
        places, left = {axis % rank for axis in numbers}, iter(shape)
        sizes = [1 if axis in places else next(left) for axis in range(rank)]
        return tuple(sizes[1:]) if 0 in places else None
    if node.op_type == "Reshape" and numbers and 0 not in numbers:
        known = math.prod(size for size in numbers if size != -1)
        sizes = [math.prod(shape) // known if size == -1 else size for size in numbers]
        return tuple(sizes[1:]) if sizes[0] == 1 else None
    return None


def _second(node: NodeProto, constants: dict[str, Any]) -> list[int]:
    """Return the second input of a node, a row of constant integers; none where it is not."""
    return constants[node.input[1]].tolist() if len(node.input) > 1 and node.input[1] in constants else []


def _constants(model: ModelProto) -> dict[str, Any]:
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            stored[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return stored
