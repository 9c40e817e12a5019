"""Operations that ONNX itself defines by simpler ones: their own definition, for one use of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import NodeProto, defs, helper, inliner

from export.graph.constants import ONNX

if TYPE_CHECKING:
    from onnx.defs import OpSchema

    from export.graph.graph import Emitter
    from export.standard.part import Part


def has_body(node: NodeProto, opset: int) -> bool:
    """Whether ONNX defines an operation by simpler ones."""
    schema = _schema(node, opset)
    return schema is not None and bool(_is_function(schema))


def body(emit: Emitter, part: Part) -> list[str] | None:
    """Emit an operation's definition; one by a loop, as Range's, is no simpler."""
    schema = _schema(part.proto, part.opset)
    types = [part.type(position) for position in range(len(part.inputs))]
    if schema is None or any(name and kind is None for name, kind in zip(part.inputs, types, strict=True)):
        return None
    node = _with_defaults(part.proto, schema)
    kinds = dict(zip(part.inputs, types, strict=True))
    graph = helper.make_graph(
        [node],
        "single",
        [helper.make_value_info(name, kind) for name, kind in kinds.items() if name],
        [helper.make_empty_tensor_value_info(name) for name in node.output if name],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", part.opset)])
    try:
        inlined = inliner.inline_selected_functions(model, [("", node.op_type)], inline_schema_functions=True)
    except RuntimeError:  # of an assertion inside
        return None
    if any(inner.op_type == "Loop" for inner in inlined.graph.node):
        return None
    kept = set(kinds)
    for inner in inlined.graph.node:
        inner.input[:] = [name if name in kept else emit.inside(name) for name in inner.input]
        inner.output[:] = [emit.inside(name) for name in inner.output]
        inner.name = inner.output[0]
        emit.nodes.append(inner)
    return [emit.inside(name) if name else "" for name in node.output]


def _schema(node: NodeProto, opset: int) -> OpSchema | None:
    try:
        return defs.get_schema(node.op_type, opset, "") if node.domain in ONNX else None
    except defs.SchemaError:
        return None


def _is_function(schema: OpSchema) -> bool:
    return bool(schema.has_function or schema.has_context_dependent_function)  # type: ignore[attr-defined]


def _with_defaults(node: NodeProto, schema: OpSchema) -> NodeProto:
    """Return a node with every attribute that has a default: definitions refer to them."""
    copy = NodeProto()
    copy.CopyFrom(node)
    given = {attribute.name for attribute in node.attribute}
    copy.attribute.extend(
        attribute.default_value
        for name, attribute in schema.attributes.items()
        if name not in given and attribute.default_value.type
    )
    return copy
