"""Which nodes of a graph ONNX Runtime's CUDA provider leaves to the CPU, by the table of its kernels (kernels.json).

The table is made by tools/cuda/kernels.py. What this cannot see: fusions that ONNX Runtime makes for CUDA alone
(tools/cuda/placement.py sees them), types of values behind an operator of com.microsoft, and whether a kernel is right.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, defs, helper, load, shape_inference

from runtime.backends.providers import NOT_ON_GPU

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLE: dict[str, dict[str, dict[str, Any]]] = json.loads(Path(__file__).with_name("kernels.json").read_text())
"""Version of ONNX Runtime -> domain -> operator -> its kernels."""
ON_CPU = ("Shape", "Size")
"""What has a kernel for CUDA whose output is on the CPU, and takes what follows with it."""


def left_to_the_cpu(model: ModelProto) -> dict[str, list[str]]:
    """Name the nodes for which a version of ONNX Runtime has no CUDA kernel, as `Atanh of float`: by version."""
    types = dict(_types(shape_inference.infer_shapes(model)))
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    return {
        version: [
            f"{node.op_type} of {', '.join(types.get(name, '?') for name in node.input if name)}"
            for node in model.graph.node
            if node.op_type in ON_CPU
            or _is_refused(node)
            or not any(_takes(kernel, node, opsets, types) for kernel in table[node.domain].get(node.op_type, ()))
        ]
        for version, table in TABLE.items()
    }


def optimised(model: bytes, path: Path) -> ModelProto:
    """Return what ONNX Runtime makes of a graph for any provider, opened as on a GPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"], disabled_optimizers=NOT_ON_GPU)
    return load(path)


def _takes(
    kernel: tuple[int, int | None, dict[str, list[str]]], node: NodeProto, opsets: dict[str, int], types: dict[str, str]
) -> bool:
    """Whether a kernel is of the node's operator as it has been since some version, and of its types.

    As ONNX Runtime has it, one without a last version is of its first alone: an operator may change in a later one.
    """
    first, last, allowed = kernel
    if node.domain:
        return True
    schema = defs.get_schema(node.op_type, opsets[""], "")
    if schema.since_version not in range(first, (last or first) + 1):
        return False
    bound = [*_bound(schema.inputs, node.input), *_bound(schema.outputs, node.output)]
    return all(
        types.get(value, kinds[0]) in kinds
        for constraint, kinds in allowed.items()
        for formal, value in bound
        if value and constraint in (formal.type_str, formal.name)
    )


def _bound(formals: Any, values: Any) -> list[tuple[Any, str]]:
    """Pair the values of a node with their formal parameters; the last may take many."""
    return [(formals[min(index, len(formals) - 1)], value) for index, value in enumerate(values)]


def _is_refused(node: NodeProto) -> bool:
    """Whether the provider refuses a node for its attributes (cuda_execution_provider.cc, GetCapability)."""
    given = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    pads = given.get("pads", [])
    unequal = pads[: len(pads) // 2] != pads[len(pads) // 2 :]
    automatic = given.get("auto_pad", b"NOTSET").startswith(b"SAME")
    return (node.op_type == "ConvTranspose" and (unequal or automatic)) or bool(given.get("select_last_index"))


def _types(model: ModelProto) -> Iterator[tuple[str, str]]:
    graph = model.graph
    for tensor in graph.initializer:
        yield tensor.name, _name(tensor.data_type)
    for info in (*graph.input, *graph.value_info, *graph.output):
        yield info.name, _name(info.type.tensor_type.elem_type)


def _name(kind: int) -> str:
    """Return the name of a type as ONNX Runtime writes it."""
    name: str = TensorProto.DataType.Name(kind)
    return name.lower()
