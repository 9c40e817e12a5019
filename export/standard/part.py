"""One operation to write out, with what is known of its operands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from onnx import NodeProto, TensorProto, TypeProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from export.graph.graph import Array, Emitter


class Part:
    """A node of a graph that is written out in order.

    Args:
        proto: the node.
        constants: of the graph, by name.
        types: of the values before it, as far as they are known.
        opset: of the graph.

    """

    def __init__(
        self, proto: NodeProto, constants: Mapping[str, TensorProto], types: Mapping[str, TypeProto], opset: int
    ) -> None:
        self.proto, self.inputs, self.opset = proto, tuple(proto.input), opset
        self._attributes = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
        self._constants, self._types = constants, types

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute, or `default` where the node does not carry it."""
        return self._attributes.get(name, default)

    def attributes(self, *names: str) -> dict[str, Any]:
        """Return those of the named attributes that the node carries."""
        return {name: self._attributes[name] for name in names if name in self._attributes}

    def input(self, position: int) -> str:
        """Return the name of an input, empty where it is not given."""
        return self.inputs[position] if position < len(self.inputs) else ""

    def constant(self, position: int) -> Array | None:
        """Return the value of an input, None where it is not stored."""
        tensor = self._constants.get(self.input(position))
        return None if tensor is None else numpy_helper.to_array(tensor)

    def type(self, position: int) -> TypeProto | None:
        """Return the type of an input, None where it is not known."""
        tensor = self._constants.get(self.input(position))
        if tensor is not None:
            return helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
        return self._types.get(self.input(position))

    def kind(self, position: int) -> int | None:
        """Return the element type of an input, None where it is not known."""
        known = self.type(position)
        return None if known is None else int(known.tensor_type.elem_type)

    def sizes(self, position: int) -> tuple[int | None, ...] | None:
        """Return the sizes of an input, None for each that is not fixed; None where not even their number is known."""
        known = self.type(position)
        if known is None or not known.tensor_type.HasField("shape"):
            return None
        return tuple(dim.dim_value if dim.dim_value else None for dim in known.tensor_type.shape.dim)

    def rank(self, position: int) -> int | None:
        """Return how many axes an input has, None where that is not known."""
        sizes = self.sizes(position)
        return None if sizes is None else len(sizes)


Writing: TypeAlias = "Callable[[Emitter, Part], str | list[str] | None]"
"""Emits nodes and returns the names of what stands for the outputs; None: this use of it is left as it is."""
