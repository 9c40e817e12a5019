"""The constants and shapes of a graph's values, at its own batch and at a larger one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Mapping

Sizes = tuple[int, ...]
LARGER = 3
"""Shapes are inferred at the graph's own batch and at this multiple of it: an axis that grows holds the batch."""


class Values:
    """The constants and the sizes of a graph's values.

    Args:
        model: its initializers are the first constants.
        sizes: of each input, the batch first: the batch that the graph names, 1 where it names none.

    """

    def __init__(self, model: ModelProto, sizes: Mapping[str, Sizes]) -> None:
        self.model = model
        self.constants: dict[str, TensorProto] = {tensor.name: tensor for tensor in model.graph.initializer}
        self.rows_before: dict[str, int] = {}
        """How much of the batch's axis lies before the batch: 17 where 17 rows and the batch became one axis."""
        self._moved: dict[str, int] = {}
        self._types: dict[str, TypeProto] = {}
        self._larger: dict[str, TypeProto] = {}
        for info in model.graph.input:
            if info.name not in self.constants:
                kind = info.type.tensor_type.elem_type
                batch, *rest = sizes[info.name]
                self._types[info.name] = helper.make_tensor_type_proto(kind, [batch, *rest])
                self._larger[info.name] = helper.make_tensor_type_proto(kind, [LARGER * batch, *rest])

    def sizes(self, name: str) -> Sizes | None:
        """Return the sizes of a value at the graph's own batch; None where they are not known."""
        return self._known(name, self._types)

    def sizes_at_larger_batch(self, name: str) -> Sizes | None:
        """Return the sizes of a value at `LARGER` times that batch."""
        return self._known(name, self._larger)

    def batch_axis(self, name: str) -> int | None:
        """Return the first axis of a value that grows with the batch; None if none does or the shape is unknown."""
        sizes, larger = self.sizes(name), self.sizes_at_larger_batch(name)
        if sizes is None or larger is None or len(sizes) != len(larger):
            return None
        return next((axis for axis, size in enumerate(sizes) if larger[axis] != size), None)

    def depth(self, name: str) -> int:
        """Return how many rows lie before the batch in memory order; it locates the batch."""
        axis, sizes = self.batch_axis(name), self.sizes(name)
        return math.prod((sizes or ())[:axis]) * self.rows_before.get(name, 1)

    def kind(self, name: str) -> int:
        """Return the element type of a value, 0 where it is not known."""
        if name in self.constants:
            return self.constants[name].data_type
        return int(self._types[name].tensor_type.elem_type) if name in self._types else 0

    def value(self, name: str) -> Any:
        """Return a constant, or None."""
        return numpy_helper.to_array(self.constants[name]) if name in self.constants else None

    def constant(self, value: Any, near: NodeProto) -> str:
        """Add a constant for the use of a node and return its name."""
        name = f"{near.output[0]}/free_{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def move_batch(self, name: str, rows_before: int) -> None:
        """Note where the batch lies within its axis in an output of the rewritten node."""
        self._moved[name] = rows_before

    def _known(self, name: str, types: Mapping[str, TypeProto]) -> Sizes | None:
        if name in self.constants:
            return tuple(self.constants[name].dims)
        if name not in types or not types[name].tensor_type.HasField("shape"):
            return None
        dims = types[name].tensor_type.shape.dim
        return tuple(dim.dim_value for dim in dims) if all(dim.HasField("dim_value") for dim in dims) else None
