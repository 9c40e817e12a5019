"""Rewrites the operations whose constants may name the batch, so that they take any batch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import NodeProto, helper

from runtime.errors import BadModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from export.adapt.batch_values import Sizes, Values

TO_THE_END = 2**63 - 1


def _reshape(graph: Values, node: NodeProto) -> list[NodeProto]:
    """Name every size except that of the batch's axis; a reshape does not move the batch in memory."""
    sizes, axis, out = graph.sizes(node.input[0]), graph.batch_axis(node.input[0]), graph.sizes(node.output[0])
    if sizes is None or axis is None or not out:
        return [node]
    new_axis, rows_before = _axis_of_batch(out, graph.depth(node.input[0]))
    graph.move_batch(node.output[0], rows_before)
    target = list(out)
    # 0 copies the batch, so that inference knows it is the same.
    target[new_axis] = 0 if new_axis == axis and out[new_axis] == sizes[axis] else -1
    return [_with_inputs(node, node.input[0], graph.constant(np.asarray(target, np.int64), node), allowzero=0)]


def _axis_of_batch(sizes: Sizes, depth: int) -> tuple[int, int]:
    """Return the axis that holds a batch of this depth, and how many rows of that axis lie before the batch.

    At a border between two axes it is one of its own, of size 1; else it begins the second, or where that is the
    last, features, it ends the first: rows.
    """
    fitting = []
    for axis in range(len(sizes)):
        before = math.prod(sizes[:axis])
        if depth % before == 0 and before <= depth <= before * sizes[axis]:
            fitting.append((axis, depth // before))
    alone = [(axis, rows) for axis, rows in fitting if rows == 1 and sizes[axis] == 1]
    inside = [(axis, rows) for axis, rows in fitting if axis < len(sizes) - 1]
    first = [(axis, rows) for axis, rows in inside if rows == 1]
    return next(iter([*alone, *first, *inside, *fitting]), (0, 1))


def _expand(graph: Values, node: NodeProto) -> list[NodeProto]:
    """Ask for size 1 on the batch's axis, which leaves the batch unchanged."""
    operand, shape = node.input[0], graph.value(node.input[1])
    sizes, larger = graph.sizes(operand), graph.sizes_at_larger_batch(operand)
    if sizes is None or larger is None or shape is None:
        return [node]
    target = shape.copy()
    for axis in range(-len(sizes), 0):
        if sizes[axis] != larger[axis]:
            target[axis] = 1
    return [_with_inputs(node, node.input[0], graph.constant(target, node))]


def _concat(graph: Values, node: NodeProto) -> list[NodeProto]:
    """Join an operand of one row, such as a class token, by padding and adding, which broadcasts it over the batch."""
    fixed = [position for position, name in enumerate(node.input) if name in graph.constants]
    sizes = [graph.sizes(name) for name in node.input]
    live = [name for name in node.input if graph.batch_axis(name) is not None]
    if len(live) in (0, len(node.input)) or None in sizes:
        return [node]
    batch, rank = graph.batch_axis(live[0]), len(sizes[0] or ())
    axis = next(helper.get_attribute_value(a) for a in node.attribute if a.name == "axis") % rank
    if axis == batch:
        return [node]
    lengths = [size[axis] for size in sizes if size is not None]
    kind = helper.tensor_dtype_to_np_dtype(graph.kind(node.input[0]))
    rows = [
        graph.value(name) if position in fixed else np.zeros(sizes[position] or (), kind)
        for position, name in enumerate(node.input)
    ]
    nodes, total = [], graph.constant(np.concatenate(rows, axis=axis), node)
    for position, name in enumerate(node.input):
        if position not in fixed:
            pads = [0] * 2 * rank
            pads[axis], pads[rank + axis] = sum(lengths[:position]), sum(lengths[position + 1 :])
            padded, added = f"{node.output[0]}/padded_{position}", f"{node.output[0]}/added_{position}"
            nodes.append(helper.make_node("Pad", [name, graph.constant(np.asarray(pads, np.int64), node)], [padded]))
            nodes.append(helper.make_node("Add", [padded, total], [added]))
            total = added
    nodes[-1].output[0] = node.output[0]
    return nodes


def _slice(graph: Values, node: NodeProto) -> list[NodeProto]:
    """Take the whole batch if the slice took the whole fixed batch."""
    sizes, batch = graph.sizes(node.input[0]), graph.batch_axis(node.input[0])
    starts, ends = graph.value(node.input[1]), graph.value(node.input[2])
    if sizes is None or batch is None or starts is None or ends is None:
        return [node]
    given = graph.value(node.input[3]) if len(node.input) > 3 and node.input[3] else np.arange(len(starts))
    free = np.asarray(ends, np.int64).copy()
    for index, axis in enumerate(given % len(sizes)):
        if axis == batch and starts[index] == 0 and ends[index] >= sizes[axis]:
            free[index] = TO_THE_END
    start = graph.constant(np.asarray(starts, np.int64), node)
    rest = [
        graph.constant(np.asarray(graph.value(name), np.int64), node) if name in graph.constants else name
        for name in node.input[3:]
    ]
    return [_with_inputs(node, node.input[0], start, graph.constant(free, node), *rest)]


def _squeeze(graph: Values, node: NodeProto) -> list[NodeProto]:
    """Name the axes of size 1 except the batch's, if the node names none."""
    sizes, batch = graph.sizes(node.input[0]), graph.batch_axis(node.input[0])
    if sizes is None or batch is None or (len(node.input) > 1 and node.input[1]):
        return [node]
    axes = [axis for axis, size in enumerate(sizes) if size == 1 and axis != batch]
    return [_with_inputs(node, node.input[0], graph.constant(np.asarray(axes, np.int64), node))]


def _gather(graph: Values, node: NodeProto) -> list[NodeProto]:
    """Replace a Gather that takes all numbers of a flat value in order by a Reshape; PyTorch writes pooling so."""
    sizes, indices = graph.sizes(node.input[0]), graph.value(node.input[1])
    if sizes is None or len(sizes) != 1 or indices is None or not np.array_equal(indices.ravel(), range(sizes[0])):
        return [node]
    shape = graph.constant(np.asarray(indices.shape, np.int64), node)
    return _reshape(graph, helper.make_node("Reshape", [node.input[0], shape], node.output))


def _resize(graph: Values, node: NodeProto) -> list[NodeProto]:
    """Give sizes for the pixels alone."""
    batch = graph.batch_axis(node.input[0])
    sizes = graph.value(node.input[3]) if len(node.input) > 3 else None
    if batch is None or sizes is None or any(attribute.name == "axes" for attribute in node.attribute):
        return [node]
    axes = [axis for axis in range(len(sizes)) if axis != batch]
    given = [*node.input[:3], graph.constant(sizes[axes], node)]
    return [_with_inputs(node, *given, axes=axes)]


def _recurrent(graph: Values, node: NodeProto) -> list[NodeProto]:
    """Drop inputs that name the batch but state the default: full sequence lengths, initial states of zero.

    Raises:
        BadModel: its sequences are shorter, each by a number of its own.

    """
    inputs, sizes = list(node.input), graph.sizes(node.input[0])
    lengths = graph.value(inputs[4]) if len(inputs) > 4 else None
    if lengths is not None and sizes:
        if graph.batch_axis(node.input[0]) == 0 or not np.all(lengths == sizes[0]):
            name = node.name or node.output[0]
            raise BadModel(
                f"node {name!r} ({node.op_type}) reads sequences of {sizes[0]} up to the lengths {lengths.tolist()}",
                hint="export it without sequence lengths: every image has the same number of rows",
            )
        inputs[4] = ""
    for position in (5, 6):
        given = graph.value(inputs[position]) if len(inputs) > position else None
        if given is not None and not given.any():
            inputs[position] = ""
    while not inputs[-1]:
        inputs.pop()
    return [_with_inputs(node, *inputs)]


def _with_inputs(node: NodeProto, *inputs: str, **attributes: Any) -> NodeProto:
    changed = NodeProto()
    changed.CopyFrom(node)
    changed.input[:] = inputs
    kept = [attribute for attribute in node.attribute if attribute.name not in attributes]
    del changed.attribute[:]
    changed.attribute.extend(kept)
    changed.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    return changed


REWRITES: dict[str, Callable[[Values, NodeProto], list[NodeProto]]] = {
    "Concat": _concat,
    "Expand": _expand,
    "GRU": _recurrent,
    "Gather": _gather,
    "LSTM": _recurrent,
    "RNN": _recurrent,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "Squeeze": _squeeze,
}
"""Operations whose constants may name the batch."""
