"""float16 in the graph itself: named nodes, or all from the first weights on, with the casts in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, defs, helper, numpy_helper

from export.graph.graph import typed_values
from export.graph.passes import opset_of, prepare
from runtime.errors import BadModel
from runtime.session import LOGITS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from export.graph.passes import Prepared

HALF, SINGLE = TensorProto.FLOAT16, TensorProto.FLOAT
FLOATS: dict[int, str] = {HALF: "float16", SINGLE: "float32"}
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
LARGEST = float(np.finfo(np.float16).max)


def in_float16(forward: Prepared, nodes: Collection[str] | None = None) -> Prepared:
    """Return a graph in which nodes compute in float16; `input` and `logits` stay float32.

    An input that an operation takes in float32 alone, as Resize its scales, stays that. Constants beyond float16's
    range become its largest number.

    Args:
        forward: in float32, at most in part in float16.
        nodes: names of outputs of those nodes. None: all from the first with weights on; what lies before, the
            normalisation, costs little, and would round the images themselves.

    Raises:
        BadModel: the model has branches or loops.

    """
    chosen = _from_first_weights(forward.model) if nodes is None else set(nodes)
    caster = _Caster(forward.model)
    for node in forward.model.graph.node:
        caster.add(node, half=node.output[0] in chosen)
    return prepare(caster.result())


def _from_first_weights(model: ModelProto) -> set[str]:
    nodes = list(model.graph.node)
    first = next((index for index, node in enumerate(nodes) if node.op_type in WEIGHTED), 0)
    return {node.output[0] for node in nodes[first:]}


class _Caster:
    """One walk over a graph in order, which keeps the present type of every value and puts casts where they differ."""

    def __init__(self, model: ModelProto) -> None:
        self._model = model
        self._opset = opset_of(model)
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._types = {info.name: info.type.tensor_type.elem_type for info in typed_values(model.graph)}
        self._types |= {name: tensor.data_type for name, tensor in self._constants.items()}
        self._nodes: list[NodeProto] = []
        self._cast: dict[str, TensorProto | None] = {}
        """Values in their other type by name: a constant, or None for one that a node makes."""

    def add(self, original: NodeProto, *, half: bool) -> None:
        """Append a node in float16 or in float32, and the casts before it.

        Raises:
            BadModel: the node is a branch or a loop.

        """
        if any(attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for attribute in original.attribute):
            raise BadModel(
                f"node {original.name or original.output[0]!r} ({original.op_type}) holds a graph of its own",
                hint="export the model without branches and loops",
            )
        node = NodeProto()
        node.CopyFrom(original)
        letters = _letters(node, self._opset) if half else [None] * len(node.input)
        node.input[:] = [
            self._in_type(name, HALF if letter else SINGLE) for name, letter in zip(node.input, letters, strict=True)
        ]
        self._nodes.append(node)
        halved = {letter for letter, name in zip(letters, node.input, strict=True) if letter and self._is(name, HALF)}
        for name, letter in zip(node.output, _output_letters(node, self._opset), strict=True):
            if letter in halved and self._is(name, SINGLE):
                self._types[name] = HALF

    def result(self) -> ModelProto:
        """Return the model as it is now, its output in float32 again."""
        if self._is(LOGITS, HALF):
            inner = f"{LOGITS}/float16"
            for node in self._nodes:
                node.input[:] = [inner if name == LOGITS else name for name in node.input]
                node.output[:] = [inner if name == LOGITS else name for name in node.output]
            self._nodes.append(helper.make_node("Cast", [inner], [LOGITS], name="cast_logits", to=SINGLE))
        model = ModelProto()
        model.CopyFrom(self._model)
        del model.graph.node[:], model.graph.value_info[:]
        model.graph.node.extend(self._nodes)
        model.graph.initializer.extend(tensor for tensor in self._cast.values() if tensor is not None)
        return model

    def _is(self, name: str, kind: int) -> bool:
        return self._types.get(name) == kind

    def _in_type(self, name: str, kind: int) -> str:
        """Return the name of a value in float16 or float32; that of any other type as it is."""
        if self._types.get(name) not in FLOATS or self._is(name, kind):
            return name
        other = f"{name}/{FLOATS[kind]}"
        if other not in self._cast:
            self._cast[other] = self._made(name, other, kind)
            self._types[other] = kind
        return other

    def _made(self, name: str, other: str, kind: int) -> TensorProto | None:
        if name not in self._constants:
            self._nodes.append(helper.make_node("Cast", [name], [other], name=other, to=kind))
            return None
        values = numpy_helper.to_array(self._constants[name])
        if kind == HALF:
            return numpy_helper.from_array(np.clip(values, -LARGEST, LARGEST).astype(np.float16), other)
        return numpy_helper.from_array(values.astype(np.float32), other)


def _letters(node: NodeProto, opset: int) -> list[str | None]:
    """Return, for each input, the type variable that may be float16; None where the operation takes no float16."""
    schema = _schema(node, opset)
    if schema is None:
        return [None] * len(node.input)
    takes = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    formal = [_formal(schema.inputs, index) for index in range(len(node.input))]
    return [letter if "tensor(float16)" in takes.get(letter, ()) else None for letter in formal]


def _output_letters(node: NodeProto, opset: int) -> list[str]:
    schema = _schema(node, opset)
    if schema is None:
        return [""] * len(node.output)
    return [_formal(schema.outputs, index) for index in range(len(node.output))]


def _formal(parameters: Sequence[defs.OpSchema.FormalParameter], index: int) -> str:
    """Return the type of a parameter as the schema has it; the last stands for all that follow."""
    return str(parameters[min(index, len(parameters) - 1)].type_str)


def _schema(node: NodeProto, opset: int) -> defs.OpSchema | None:
    """Return what ONNX says of an operation; None of one that is not ONNX's own."""
    return None if node.domain not in ("", "ai.onnx") else defs.get_schema(node.op_type, opset, "")
