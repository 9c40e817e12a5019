"""A graph of any batch from one of a fixed batch: every size but the batch becomes a constant."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, NodeProto, TypeProto, defs, helper, numpy_helper, shape_inference

from export.constants import evaluate_node, is_folded
from export.passes import opset_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from onnx import TensorProto

    Sizes = tuple[int, ...]

WIDER = 3
"""The graph is inferred at its own batch and at this many times it: what grows is the batch's."""
FOLDED_AT_MOST = 2**22
"""Numbers in a constant that is computed beforehand; larger ones stay an operation."""
TO_THE_END = 2**63 - 1


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


def _reshape(graph: Freeing, node: NodeProto) -> list[NodeProto]:
    """Name every size but the one that holds the batch, which a reshape leaves as deep in memory as it was."""
    narrow, axis, out = graph.narrow(node.input[0]), graph.batch_axis(node.input[0]), graph.narrow(node.output[0])
    if narrow is None or axis is None or not out:
        return [node]
    place, inner = _place(out, graph.depth(node.input[0]))
    graph.move(node.output[0], inner)
    target = list(out)
    # 0 copies the batch, so that inference knows it is the same.
    target[place] = 0 if place == axis and out[place] == narrow[axis] else -1
    return [_with_inputs(node, node.input[0], graph.constant(np.asarray(target, np.int64), node), allowzero=0)]


def _place(sizes: Sizes, depth: int) -> tuple[int, int]:
    """Return the axis that holds a batch of such a depth, and how much of that axis lies before it.

    At a border between two axes it is one of its own, of size 1; else it begins the second, or where that is the
    last, features, it ends the first: rows.
    """
    fitting = []
    for axis in range(len(sizes)):
        before = math.prod(sizes[:axis])
        if depth % before == 0 and before <= depth <= before * sizes[axis]:
            fitting.append((axis, depth // before))
    alone = [place for place in fitting if place[1] == 1 and sizes[place[0]] == 1]
    inside = [place for place in fitting if place[0] < len(sizes) - 1]
    first = [place for place in inside if place[1] == 1]
    return next(iter([*alone, *first, *inside, *fitting]), (0, 1))


def _expand(graph: Freeing, node: NodeProto) -> list[NodeProto]:
    """Ask for 1 where the operand has the batch: it stays what it is."""
    narrow, wide, shape = graph.narrow(node.input[0]), graph.wide(node.input[0]), graph.value(node.input[1])
    if narrow is None or wide is None or shape is None:
        return [node]
    target = shape.copy()
    for place in range(1, len(narrow) + 1):
        if narrow[-place] != wide[-place]:
            target[-place] = 1
    return [_with_inputs(node, node.input[0], graph.constant(target, node))]


def _concat(graph: Freeing, node: NodeProto) -> list[NodeProto]:
    """Join constants of one row (class tokens) by padding and adding, which broadcasts them over the batch."""
    fixed = [place for place, name in enumerate(node.input) if name in graph.constants]
    sizes = [graph.narrow(name) for name in node.input]
    live = [name for name in node.input if graph.batch_axis(name) is not None]
    if not fixed or not live or None in sizes:
        return [node]
    batch, rank = graph.batch_axis(live[0]), len(sizes[0] or ())
    axis = next(helper.get_attribute_value(a) for a in node.attribute if a.name == "axis") % rank
    if axis == batch:
        return [node]
    lengths = [size[axis] for size in sizes if size is not None]
    rows = [
        graph.value(name) if place in fixed else np.zeros(sizes[place] or (), graph.value(node.input[fixed[0]]).dtype)
        for place, name in enumerate(node.input)
    ]
    nodes, total = [], graph.constant(np.concatenate(rows, axis=axis), node)
    for place, name in enumerate(node.input):
        if place not in fixed:
            pads = [0] * 2 * rank
            pads[axis], pads[rank + axis] = sum(lengths[:place]), sum(lengths[place + 1 :])
            padded, added = f"{node.output[0]}/padded_{place}", f"{node.output[0]}/added_{place}"
            nodes.append(helper.make_node("Pad", [name, graph.constant(np.asarray(pads, np.int64), node)], [padded]))
            nodes.append(helper.make_node("Add", [padded, total], [added]))
            total = added
    nodes[-1].output[0] = node.output[0]
    return nodes


def _slice(graph: Freeing, node: NodeProto) -> list[NodeProto]:
    """Take the whole batch where the whole of the fixed one was taken."""
    narrow, batch = graph.narrow(node.input[0]), graph.batch_axis(node.input[0])
    starts, ends = graph.value(node.input[1]), graph.value(node.input[2])
    if narrow is None or batch is None or starts is None or ends is None:
        return [node]
    given = graph.value(node.input[3]) if len(node.input) > 3 and node.input[3] else np.arange(len(starts))
    free = np.asarray(ends, np.int64).copy()
    for place, axis in enumerate(given % len(narrow)):
        if axis == batch and starts[place] == 0 and ends[place] >= narrow[axis]:
            free[place] = TO_THE_END
    start = graph.constant(np.asarray(starts, np.int64), node)
    rest = [
        graph.constant(np.asarray(graph.value(name), np.int64), node) if name in graph.constants else name
        for name in node.input[3:]
    ]
    return [_with_inputs(node, node.input[0], start, graph.constant(free, node), *rest)]


def _squeeze(graph: Freeing, node: NodeProto) -> list[NodeProto]:
    """Name the axes, never the batch's, where all of size 1 were meant."""
    narrow, batch = graph.narrow(node.input[0]), graph.batch_axis(node.input[0])
    if narrow is None or batch is None or (len(node.input) > 1 and node.input[1]):
        return [node]
    axes = [axis for axis, size in enumerate(narrow) if size == 1 and axis != batch]
    return [_with_inputs(node, node.input[0], graph.constant(np.asarray(axes, np.int64), node))]


def _gather(graph: Freeing, node: NodeProto) -> list[NodeProto]:
    """Reshape where all numbers of a flat value are gathered in order, as PyTorch writes a pooled one's strides."""
    narrow, indices = graph.narrow(node.input[0]), graph.value(node.input[1])
    if narrow is None or len(narrow) != 1 or indices is None or not np.array_equal(indices.ravel(), range(narrow[0])):
        return [node]
    shape = graph.constant(np.asarray(indices.shape, np.int64), node)
    return _reshape(graph, helper.make_node("Reshape", [node.input[0], shape], node.output))


def _resize(graph: Freeing, node: NodeProto) -> list[NodeProto]:
    """Give sizes for the pixels alone."""
    batch = graph.batch_axis(node.input[0])
    sizes = graph.value(node.input[3]) if len(node.input) > 3 else None
    if batch is None or sizes is None or any(attribute.name == "axes" for attribute in node.attribute):
        return [node]
    axes = [axis for axis in range(len(sizes)) if axis != batch]
    given = [*node.input[:3], graph.constant(sizes[axes], node)]
    return [_with_inputs(node, *given, axes=axes)]


def _with_inputs(node: NodeProto, *inputs: str, **attributes: Any) -> NodeProto:
    changed = NodeProto()
    changed.CopyFrom(node)
    changed.input[:] = inputs
    kept = [attribute for attribute in node.attribute if attribute.name not in attributes]
    del changed.attribute[:]
    changed.attribute.extend(kept)
    changed.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    return changed


REWRITES: dict[str, Callable[[Freeing, NodeProto], list[NodeProto]]] = {
    "Concat": _concat,
    "Expand": _expand,
    "Gather": _gather,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "Squeeze": _squeeze,
}
"""Operations whose constants may name the batch."""
