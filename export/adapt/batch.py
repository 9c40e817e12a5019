"""Frees a graph of its fixed batch: every other size becomes a constant."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, NodeProto, TypeProto, helper, numpy_helper

from export.adapt.batch_rewrites import REWRITES
from export.adapt.batch_values import Sizes, Values
from export.graph.constants import ONNX, evaluate_node, is_folded
from export.graph.inference import infer_node
from runtime.errors import BadModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


FOLDED_AT_MOST = 2**22
"""Numbers in a constant that is computed beforehand; larger ones stay an operation."""


class FreedGraph(Values):
    """One walk over a graph: it folds what is constant at a fixed batch and rewrites the nodes that name the batch."""

    def __init__(self, model: ModelProto, sizes: Mapping[str, Sizes]) -> None:
        super().__init__(model, sizes)
        self.nodes: list[NodeProto] = []

    def free(self) -> None:
        """Rewrite the model in place."""
        for node in self.model.graph.node:
            if node.op_type == "Shape" and not node.domain and self.sizes(node.input[0]) is not None:
                self._fold_shape(node)
            elif is_folded(node, self.constants) and self._small(node):
                for name, value in zip(node.output, evaluate_node(node, self.constants, self.model), strict=True):
                    self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
            else:
                self._infer(node, self._types)
                rewrite = REWRITES.get(node.op_type) if not node.domain else None
                for replaced in rewrite(self, node) if rewrite else [node]:
                    self.nodes.append(replaced)
                    self._infer(replaced, self._larger)
                    self._infer(replaced, self._types)
                inherited = next((self.rows_before[name] for name in node.input if name in self.rows_before), 1)
                self.rows_before.update({name: inherited for name in node.output if inherited > 1} | self._moved)
                self._moved.clear()
        graph = self.model.graph
        del graph.node[:], graph.value_info[:], graph.initializer[:]
        graph.node.extend(self.nodes)
        read = {name for node in self.nodes for name in node.input} | {info.name for info in graph.output}
        graph.initializer.extend(tensor for name, tensor in self.constants.items() if name in read)
        inputs = [info for info in graph.input if info.name not in self.constants]
        del graph.input[:]
        graph.input.extend(inputs)

    def refuse_unknown(self, names: Iterable[str]) -> None:
        """Raise `BadModel` if the shape of a value is unknown because ONNX Runtime does not know an earlier node."""
        if any(self.sizes(name) is None for name in names):
            for node in self.nodes:
                if node.domain not in ONNX and all(self.sizes(name) is None for name in node.output):
                    raise BadModel(
                        f"node {node.name or node.output[0]!r} ({node.op_type}) of the domain {node.domain}: ONNX "
                        "Runtime cannot infer the shape of its output",
                        hint="the operation may belong to another device, or to a library that is not loaded; "
                        "export the model without it",
                    )

    def _fold_shape(self, node: NodeProto) -> None:
        sizes = self.sizes(node.input[0]) or ()
        start, end = (
            next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)
            for name, default in (("start", 0), ("end", len(sizes)))
        )
        name = node.output[0]
        self.constants[name] = numpy_helper.from_array(np.asarray(sizes[start:end], np.int64), name)

    def _small(self, node: NodeProto) -> bool:
        """Whether folding a node gives a constant of moderate size; Expand can give a huge one."""
        if node.op_type not in ("ConstantOfShape", "Expand", "Tile"):
            return True
        self._infer(node, self._types)
        return math.prod(self._known(node.output[0], self._types) or ()) <= FOLDED_AT_MOST

    def _infer(self, node: NodeProto, types: dict[str, TypeProto]) -> None:
        infer_node(node, types, self.constants, self.model)


def free_batch(model: ModelProto, sizes: Mapping[str, Sizes]) -> FreedGraph:
    """Rewrite a model in place so that it takes any batch; every other size is a constant.

    Args:
        model: opset 18 to 20.
        sizes: of each input, the batch first: the batch that the graph names, 1 where it names none.

    Returns:
        The constants and shapes of its values.

    """
    graph = FreedGraph(model, sizes)
    graph.free()
    return graph
