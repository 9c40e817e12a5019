"""A graph of any batch from one of a fixed batch: every size but the batch becomes a constant."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, NodeProto, TypeProto, defs, helper, numpy_helper, shape_inference

from export.batch_rewrites import REWRITES
from export.constants import evaluate_node, is_folded
from export.passes import opset_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx import TensorProto

    Sizes = tuple[int, ...]

WIDER = 3
"""The graph is inferred at its own batch and at this many times it: what grows is the batch's."""
FOLDED_AT_MOST = 2**22
"""Numbers in a constant that is computed beforehand; larger ones stay an operation."""


class Freeing:
    """One walk over a graph, from its inputs on: folds what is constant at a fixed batch, rewrites what named it."""

    def __init__(self, model: ModelProto, sizes: Mapping[str, Sizes]) -> None:
        self.model = model
        self.constants: dict[str, TensorProto] = {tensor.name: tensor for tensor in model.graph.initializer}
        self.nodes: list[NodeProto] = []
        self.inner: dict[str, int] = {}
        """How much of the batch's axis lies before the batch: 17 where 17 rows and the batch became one axis."""
        self._opset = opset_of(model)
        self._moved: dict[str, int] = {}
        self._narrow: dict[str, TypeProto] = {}
        self._wide: dict[str, TypeProto] = {}
        for info in model.graph.input:
            if info.name not in self.constants:
                kind = info.type.tensor_type.elem_type
                narrow, wide = sizes[info.name], (WIDER * sizes[info.name][0], *sizes[info.name][1:])
                self._narrow[info.name] = helper.make_tensor_type_proto(kind, narrow)
                self._wide[info.name] = helper.make_tensor_type_proto(kind, wide)

    def narrow(self, name: str) -> Sizes | None:
        """Return the sizes of a value at the graph's own batch; None where they are not known."""
        return self._sizes(name, self._narrow)

    def wide(self, name: str) -> Sizes | None:
        """Return the sizes of a value at `WIDER` times that batch."""
        return self._sizes(name, self._wide)

    def batch_axis(self, name: str) -> int | None:
        """Return the first axis of a value that grows with the batch; None where none does, or that is not known."""
        narrow, wide = self.narrow(name), self.wide(name)
        if narrow is None or wide is None or len(narrow) != len(wide):
            return None
        return next((axis for axis, size in enumerate(narrow) if wide[axis] != size), None)

    def depth(self, name: str) -> int:
        """Return how many numbers lie before the second image in memory's order of axes: the batch's place in it."""
        axis, narrow = self.batch_axis(name), self.narrow(name)
        return math.prod((narrow or ())[:axis]) * self.inner.get(name, 1)

    def kind(self, name: str) -> int:
        """Return the element type of a value, 0 where it is not known."""
        if name in self.constants:
            return self.constants[name].data_type
        return int(self._narrow[name].tensor_type.elem_type) if name in self._narrow else 0

    def value(self, name: str) -> Any:
        """Return a constant, or None."""
        return numpy_helper.to_array(self.constants[name]) if name in self.constants else None

    def constant(self, value: Any, near: NodeProto) -> str:
        """Add a constant for the use of a node and return its name."""
        name = f"{near.output[0]}/free_{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def move(self, name: str, inner: int) -> None:
        """Note where the batch lies in the axis that holds it, of an output of the node that is rewritten."""
        self._moved[name] = inner

    def walk(self) -> None:
        """Rewrite the model in place."""
        for node in self.model.graph.node:
            if node.op_type == "Shape" and not node.domain and self.narrow(node.input[0]) is not None:
                self._fold_shape(node)
            elif is_folded(node, self.constants) and self._small(node):
                for name, value in zip(node.output, evaluate_node(node, self.constants, self.model), strict=True):
                    self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
            else:
                self._infer(node, self._narrow)
                rewrite = REWRITES.get(node.op_type) if not node.domain else None
                for replaced in rewrite(self, node) if rewrite else [node]:
                    self.nodes.append(replaced)
                    self._infer(replaced, self._wide)
                    self._infer(replaced, self._narrow)
                inherited = next((self.inner[name] for name in node.input if name in self.inner), 1)
                self.inner.update({name: inherited for name in node.output if inherited > 1} | self._moved)
                self._moved.clear()
        graph = self.model.graph
        del graph.node[:], graph.value_info[:], graph.initializer[:]
        graph.node.extend(self.nodes)
        read = {name for node in self.nodes for name in node.input} | {info.name for info in graph.output}
        graph.initializer.extend(tensor for name, tensor in self.constants.items() if name in read)
        inputs = [info for info in graph.input if info.name not in self.constants]
        del graph.input[:]
        graph.input.extend(inputs)

    def _fold_shape(self, node: NodeProto) -> None:
        sizes = self.narrow(node.input[0]) or ()
        start, end = (
            next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)
            for name, default in (("start", 0), ("end", len(sizes)))
        )
        name = node.output[0]
        self.constants[name] = numpy_helper.from_array(np.asarray(sizes[start:end], np.int64), name)

    def _small(self, node: NodeProto) -> bool:
        """Whether folding a node makes no huge constant: an Expand may."""
        if node.op_type not in ("ConstantOfShape", "Expand", "Tile"):
            return True
        self._infer(node, self._narrow)
        return math.prod(self._sizes(node.output[0], self._narrow) or ()) <= FOLDED_AT_MOST

    def _sizes(self, name: str, types: Mapping[str, TypeProto]) -> Sizes | None:
        if name in self.constants:
            return tuple(self.constants[name].dims)
        if name not in types or not types[name].tensor_type.HasField("shape"):
            return None
        dims = types[name].tensor_type.shape.dim
        return tuple(dim.dim_value for dim in dims) if all(dim.HasField("dim_value") for dim in dims) else None

    def _infer(self, node: NodeProto, types: dict[str, TypeProto]) -> None:
        """Infer the types of a node's outputs; what cannot be inferred is left out."""
        data = {name: self.constants[name] for name in node.input if name in self.constants}
        known = {name: types[name] for name in node.input if name in types}
        known |= {name: helper.make_tensor_type_proto(t.data_type, list(t.dims)) for name, t in data.items()}
        try:
            schema = defs.get_schema(node.op_type, self._opset, node.domain)
            found = shape_inference.infer_node_outputs(
                schema, node, known, data, opset_imports=list(self.model.opset_import)
            )
        except (defs.SchemaError, shape_inference.InferenceError, KeyError, RuntimeError, ValueError):
            return
        types.update(found)


def free_batch(model: ModelProto, sizes: Mapping[str, Sizes]) -> Freeing:
    """Rewrite a model, in place, so that it takes any batch and names no other size at run time.

    Args:
        model: opset 18 to 20.
        sizes: of each input, the batch first: the batch that the graph names, 1 where it names none.

    Returns:
        What is known of its values.

    """
    freeing = Freeing(model, sizes)
    freeing.walk()
    return freeing
