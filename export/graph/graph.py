"""An ONNX graph for differentiation: nodes with known shapes, and an emitter that appends new ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, helper, numpy_helper

from export.graph.constants import evaluate_node, is_constant
from runtime.errors import BadModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]

Shape = tuple[int | None, ...]
"""Sizes of a value; None is the batch, the one size that is known only at run time."""

Gradients = Mapping[int, str]
"""What a rule returns: names of the gradients of a node's inputs, by position."""


class Node:
    """One operation of the forward graph, with what its derivative has to know about its operands."""

    def __init__(self, proto: NodeProto, graph: Graph) -> None:
        self.proto = proto
        self.op: str = proto.op_type
        self.inputs: tuple[str, ...] = tuple(proto.input)
        self.outputs: tuple[str, ...] = tuple(proto.output)
        self.active: tuple[int, ...] = ()
        self._attributes = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
        self._graph = graph

    def __str__(self) -> str:
        return f"node {self.proto.name or self.outputs[0]!r} ({self.op})"

    def attribute(self, name: str, default: Any) -> Any:
        """Return an attribute, or `default` where the node does not carry it."""
        return self._attributes.get(name, default)

    def has(self, position: int) -> bool:
        """Whether the optional input at `position` is given."""
        return position < len(self.inputs) and bool(self.inputs[position])

    def shape(self, position: int = 0) -> Shape:
        """Return the shape of an input."""
        return self._graph.shape(self.inputs[position])

    @property
    def output_shape(self) -> Shape:
        """The shape of the first output."""
        return self.output_shape_of(0)

    def output_shape_of(self, position: int) -> Shape:
        """Return the shape of an output."""
        return self._graph.shape(self.outputs[position])

    def source(self, position: int = 0) -> Node | None:
        """Return the node that an input comes from, None for an image or a constant."""
        return self._graph.sources.get(self.inputs[position])

    def maker(self, position: int = 0) -> str | None:
        """Return the operation that an input comes from, None for an image or a constant."""
        source = self.source(position)
        return source.op if source else None

    def readers(self) -> list[Node]:
        """Return the nodes that read the first output."""
        return self._graph.readers.get(self.outputs[0], [])

    def is_constant(self, position: int) -> bool:
        """Whether an input depends on no image."""
        return self.inputs[position] in self._graph.constants

    def is_real(self, name: str) -> bool:
        """Whether an input or output is a floating-point tensor."""
        return self._graph.is_real(name)

    def gradient_type(self, name: str) -> np.dtype[Any]:
        """Return the type of the gradient of an input or output."""
        return self._graph.gradient_type(name)

    def computes_in(self) -> np.dtype[Any]:
        """Return the floating-point type of the first output, or where it has none, of the first input's gradient."""
        first = self.outputs[0] if self.is_real(self.outputs[0]) else self.inputs[0]
        return self.gradient_type(first)

    def constant(self, position: int) -> Array:
        """Return the value of an input that must not depend on the image.

        Raises:
            BadModel: the input is computed at run time.

        """
        value = self._graph.constants.get(self.inputs[position])
        if value is None:
            raise self.refused(f"its input {self.inputs[position]!r} is computed at run time")
        return value

    def sizes(self, shape: Shape, start: int = 1) -> tuple[int, ...]:
        """Return the sizes of `shape` from dimension `start`, which must be known.

        Raises:
            BadModel: one of them is known only at run time.

        """
        known = tuple(size for size in shape[start:] if size is not None)
        if len(known) != len(shape[start:]):
            raise self.refused(f"a shape {list(shape)} is known only at run time")
        return known

    def refused(self, reason: str) -> BadModel:
        """Return the error that this node cannot be differentiated, for the caller to raise."""
        return BadModel(
            f"{self} cannot be differentiated: {reason}",
            hint="export the model with static image sizes and constant weights, in evaluation mode",
        )


class Graph:
    """A model whose values all have an inferred type and shape (`export.graph.passes.prepare` makes it so)."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.constants: Mapping[str, Array] = _constants(model)
        self._types = {info.name: info.type.tensor_type for info in typed_values(model.graph)}
        self.nodes = [Node(proto, self) for proto in model.graph.node]
        self.sources = {name: node for node in self.nodes for name in node.outputs}
        self.readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in set(node.inputs):
                self.readers.setdefault(name, []).append(node)

    def shape(self, name: str) -> Shape:
        """Return the shape of a value; raise `BadModel` where it could not be inferred."""
        if name in self.constants:
            return self.constants[name].shape
        if name not in self._types or not self._types[name].HasField("shape"):
            raise BadModel(f"the shape of {name!r} cannot be inferred", hint="simplify the model first")
        return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in self._types[name].shape.dim)

    def is_real(self, name: str) -> bool:
        """Whether a value is a floating-point tensor, or of unknown type."""
        return not self._has_type(name) or np.issubdtype(self.dtype(name), np.floating)

    def gradient_type(self, name: str) -> np.dtype[Any]:
        """Return the type of a value's gradient: its own; of integers, of truth values and of unknown ones the logits'.

        Integers stand for numbers on a path to the logits: what they change there has a derivative.
        """
        known = self._has_type(name) and self.is_real(name)
        return self.dtype(name if known else self.model.graph.output[0].name)

    def _has_type(self, name: str) -> bool:
        return name in self.constants or name in self._types

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the element type of a value."""
        if name in self.constants:
            return self.constants[name].dtype
        return helper.tensor_dtype_to_np_dtype(self._types[name].elem_type)


def _constants(model: ModelProto) -> Mapping[str, Array]:
    """Return every value that depends on no input: stored, or computed of integers that are stored."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if is_constant(node, stored):
            for name, value in zip(node.output, evaluate_node(node, stored, model), strict=True):
                stored[name] = numpy_helper.from_array(np.asarray(value), name)
    return {name: numpy_helper.to_array(tensor) for name, tensor in stored.items()}


def typed_values(graph: GraphProto) -> Iterable[ValueInfoProto]:
    """Return every value of a graph that carries a type: inputs, intermediate values, outputs."""
    return [*graph.input, *graph.value_info, *graph.output]


class Emitter:
    """Appends nodes and constants, in the order of execution, under names of its own.

    Calling it emits one node and returns the name of its output: `emit("Mul", a, b)`. `dtype` is the floating-point
    type of constants and casts from now on.
    """

    def __init__(self, dtype: np.dtype[Any], prefix: str = "grad") -> None:
        self.dtype = dtype
        self.nodes: list[NodeProto] = []
        self._prefix = prefix
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._tensors: list[Any] = []

    @property
    def initializers(self) -> list[Any]:
        """The constants emitted so far, as TensorProtos."""
        return self._tensors

    def __call__(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Emit one node with one output and return the output's name."""
        return self.many(op, inputs, 1, **attributes)[0]

    def many(self, op: str, inputs: Sequence[str], outputs: int, **attributes: Any) -> list[str]:
        """Emit one node with several outputs and return their names."""
        stem = f"{self._prefix}/{op}_{len(self.nodes)}"
        names = [stem if outputs == 1 else f"{stem}.{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, name=stem, **attributes))
        return names

    def real(self, value: Any) -> str:
        """Return a constant of the present floating-point type; what is beyond its range becomes its largest number.

        So no constant is infinite: infinity times the 0 of a mask is no number.
        """
        largest = np.finfo(self.dtype).max
        return self.constant(np.clip(np.asarray(value, np.float64), -largest, largest).astype(self.dtype))

    def integers(self, value: Any) -> str:
        """Return an int64 constant: shapes, axes, indices."""
        return self.constant(np.asarray(value, np.int64))

    def cast(self, value: str) -> str:
        """Turn a boolean or integer value into the present floating-point type."""
        return self("Cast", value, to=helper.np_dtype_to_tensor_dtype(self.dtype))

    def converted(self, value: str, old: np.dtype[Any], new: np.dtype[Any]) -> str:
        """Bring a floating-point value from one type to another, where they differ."""
        return value if old == new else self("Cast", value, to=helper.np_dtype_to_tensor_dtype(new))

    def equal(self, a: str, b: str) -> str:
        """Compare: 1 where the values are equal, in the present floating-point type.

        Not by Equal, nor `one_hot` by Equal and `largest` by ReduceMax: for those of opsets 19 and 20 ONNX Runtime has
        no CUDA kernel in its versions for CUDA 12.
        """
        return self.cast(self("And", self("GreaterOrEqual", a, b), self("LessOrEqual", a, b)))

    def one_hot(self, index: str, count: int, axis: int = -1) -> str:
        """Put a 1 at each index, along a new axis of `count`."""
        return self("OneHot", index, self.integers(count), self.real([0, 1]), axis=axis)

    def largest(self, rows: str) -> str:
        """Return the largest of each row [B, K]: [B, 1]."""
        return self.many("TopK", [rows, self.integers([1])], 2, axis=1)[0]

    def number(self, node: Node, name: str) -> str:
        """Return an input or output of a node as a floating-point value: integers in the present type."""
        return name if node.is_real(name) else self.cast(name)

    def reshape(self, value: str, shape: Shape) -> str:
        """Reshape [batch, ...] to [batch, ...], copying the batch, so that inference knows it is the same.

        ONNX Runtime joins two operands in its blocked layout only where their shapes are known to be equal.
        """
        return self("Reshape", value, self.integers([0 if size is None else size for size in shape]))

    def regroup(self, value: str, shape: Shape) -> str:
        """Reshape to `shape` where the batch may have been elsewhere before."""
        return self("Reshape", value, self.integers([-1 if size is None else size for size in shape]))

    def reshaped(self, value: str, old: Shape, new: Shape) -> str:
        """Reshape `old` to `new`, copying the batch where both have it in front, and alone."""
        if old[:1] == new[:1] == (None,) and _size(old) == _size(new):
            return self.reshape(value, new)
        return self.regroup(value, new)

    def inside(self, name: str) -> str:
        """Return a name of this emitter's own for a value of a graph that is put among its nodes."""
        return f"{self._prefix}/{name}" if name else ""

    def rename(self, value: str, name: str) -> None:
        """Give an emitted value its name as an output of the graph."""
        for node in self.nodes:
            node.input[:] = [name if item == value else item for item in node.input]
            node.output[:] = [name if item == value else item for item in node.output]

    def constant(self, array: Array) -> str:
        """Return a constant of its own type."""
        array = np.ascontiguousarray(array).reshape(np.shape(array))
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"{self._prefix}/constant_{len(self._constants)}"
            self._constants[key] = name
            self._tensors.append(numpy_helper.from_array(array, name))
        return self._constants[key]


def _size(shape: Shape) -> int:
    """Return how many numbers one image has."""
    return math.prod(size for size in shape if size is not None)
