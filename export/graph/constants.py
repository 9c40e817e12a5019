"""Recognises and evaluates the nodes that depend on no input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnx import ModelProto, NodeProto, helper
from onnx.reference import ReferenceEvaluator

from runtime.errors import BadModel

if TYPE_CHECKING:
    from collections.abc import Mapping

ONNX = ("", "ai.onnx")
"""The names of the standard operator set."""
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
EVALUATED = 19
"""The operator set in which those two are computed."""


def is_constant(node: NodeProto, constants: Mapping[str, Any]) -> bool:
    """Whether a node depends on constants alone."""
    if node.op_type == "Constant":
        return True
    inputs = [name for name in node.input if name]
    return bool(inputs) and all(name in constants for name in inputs)


def is_folded(node: NodeProto, constants: Mapping[str, Any]) -> bool:
    """Whether a node is to be replaced by its value: one of constants, but no weights stored as integers.

    Those are what makes a graph int8: an engine takes the integers, and the file is a quarter of the size. What only
    ONNX Runtime can compute stays too.
    """
    return is_constant(node, constants) and node.op_type != DEQUANTIZE and node.domain in ONNX


def evaluate_node(node: NodeProto, constants: Mapping[str, Any], model: ModelProto) -> list[Any]:
    """Return the outputs of a node whose inputs are all constants (TensorProtos by name); `BadModel` if none can."""
    graph = helper.make_graph(
        [node],
        "constant",
        [],
        [helper.make_empty_tensor_value_info(name) for name in node.output],
        [constants[name] for name in dict.fromkeys(node.input) if name],
    )
    # onnx's evaluator begins with 19, in which they mean what they did in 13.
    integers = node.op_type in (QUANTIZE, DEQUANTIZE)
    imports = [helper.make_opsetid("", EVALUATED)] if integers else model.opset_import
    single = helper.make_model(graph, opset_imports=imports, ir_version=model.ir_version)
    try:
        return list(ReferenceEvaluator(single).run(None, {}))
    except Exception as error:  # of whatever kind a kernel raises
        name = node.name or node.output[0]
        raise BadModel(
            f"node {name!r} ({node.op_type}) has only constant inputs, but cannot be computed: {error}",
            hint="simplify the model first",
        ) from None
