"""Infers the types of a node's outputs, for operations of ONNX and of ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, defs, helper, shape_inference

from export.graph.passes import opset_of, to_bytes
from runtime.backends.providers import open_plain
from runtime.session import GraphFacts

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

KINDS: dict[str, int] = {
    "tensor(bool)": TensorProto.BOOL,
    "tensor(double)": TensorProto.DOUBLE,
    "tensor(float)": TensorProto.FLOAT,
    "tensor(float16)": TensorProto.FLOAT16,
    **{f"tensor({name.lower()})": kind for name, kind in TensorProto.DataType.items() if "INT" in name},
}
"""Element types by the names that ONNX Runtime has for them."""


def infer_node(
    node: NodeProto, types: MutableMapping[str, TypeProto], constants: Mapping[str, TensorProto], model: ModelProto
) -> None:
    """Add the types of a node's outputs to `types`, which holds those of its inputs; unknown types are left out."""
    data = {name: constants[name] for name in node.input if name in constants}
    known = {name: types[name] for name in node.input if name in types}
    known |= {name: helper.make_tensor_type_proto(t.data_type, list(t.dims)) for name, t in data.items()}
    try:
        schema = defs.get_schema(node.op_type, opset_of(model), node.domain)
    except defs.SchemaError:
        types.update(_told_by_onnxruntime(node, known, data, model))
        return
    try:
        imports = list(model.opset_import)
        inferred = shape_inference.infer_node_outputs(schema, node, known, data, opset_imports=imports)
    except (shape_inference.InferenceError, KeyError, RuntimeError, ValueError):
        return
    types.update(inferred)


def _told_by_onnxruntime(
    node: NodeProto, known: Mapping[str, TypeProto], data: Mapping[str, TensorProto], model: ModelProto
) -> dict[str, TypeProto]:
    """Ask ONNX Runtime, which knows its own operations, by a model of this node alone; it may not know this one."""
    names = [name for name in dict.fromkeys(node.input) if name]
    if not all(name in known for name in names):
        return {}
    given = [name for name in node.output if name]
    graph = helper.make_graph(
        [node],
        "single",
        [helper.make_value_info(name, known[name]) for name in names if name not in data],
        [helper.make_empty_tensor_value_info(name) for name in given],
        list(data.values()),
    )
    single = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    try:
        session = open_plain(to_bytes(single), GraphFacts())
        shapes = [entry.shape for entry in session.get_outputs()]
        if not all(shapes):  # no shape is told of an operation without shape inference
            shapes = [value.shape for value in session.run(None, _ones(session))]
    except Exception:  # ONNX Runtime's own errors share no base but this one
        return {}
    return {
        entry.name: helper.make_tensor_type_proto(KINDS[entry.type], shape)
        for entry, shape in zip(session.get_outputs(), shapes, strict=True)
        if entry.type in KINDS
    }


def _ones(session: Any) -> dict[str, Any]:
    """Return something to run a model on whose inputs have fixed sizes."""
    return {
        entry.name: np.ones(entry.shape, helper.tensor_dtype_to_np_dtype(KINDS[entry.type]))
        for entry in session.get_inputs()
    }
