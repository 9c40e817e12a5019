"""Converts a model to an operator set that edgeproof supports."""

from __future__ import annotations

from onnx import ModelProto, defs, version_converter

from export.graph.constants import ONNX
from export.graph.passes import OPSETS, opset_of
from export.standard import in_older_operations
from runtime.errors import BadModel, first_line

OLDEST = 9
"""The first opset whose batch normalisation and pooling mean what they mean today."""
HINT = f"export it again with opset {OPSETS[0]} to {OPSETS[-1]}, which TensorRT 10 parses too"


def raised(original: ModelProto, changes: list[str]) -> ModelProto:
    """Return a copy with an opset of `OPSETS`; add the conversion to `changes`.

    Raises:
        BadModel: it is too old, or holds an operation that this opset has not and that cannot be written out in it.

    """
    opset = opset_of(original)
    if opset in OPSETS:
        model = ModelProto()
        model.CopyFrom(original)
        model.ir_version = max(model.ir_version, 8)
        return model
    if opset < OLDEST:
        raise BadModel(f"the model has opset {opset}; edgeproof accepts {OLDEST} and later", hint=HINT)
    target = OPSETS[0] if opset < OPSETS[0] else OPSETS[-1]
    model = in_older_operations(original, target) if opset > target else original
    _check_all_exist(model, target)
    try:
        converted: ModelProto = version_converter.convert_version(model, target)
    except Exception as error:  # the converter's own errors share no base but this one
        raise BadModel(
            f"the model's opset {opset} cannot be converted to {target}: {first_line(error)}", hint=HINT
        ) from None
    converted.ir_version = max(converted.ir_version, 8)
    changes.append(f"opset {opset} converted to {target}")
    if model is not original:
        written = sorted(_operations(original) - _operations(model))
        changes.append(f"written out in opset {target}: {', '.join(written)}")
    return converted


def _check_all_exist(model: ModelProto, target: int) -> None:
    """Raise `BadModel` if an operator set lacks a node's operation, or does not support its use there."""
    for node in model.graph.node:
        if node.domain not in ONNX:
            continue
        name = node.name or node.output[0]
        try:
            defs.get_schema(node.op_type, target, "")
        except defs.SchemaError:
            raise BadModel(
                f"node {name!r} ({node.op_type}) of opset {opset_of(model)} has no form in opset {target}", hint=HINT
            ) from None
        if any(attribute.name == "block_size" and attribute.i for attribute in node.attribute):
            raise BadModel(f"node {name!r} ({node.op_type}) is quantised in blocks: opset {target} has none", hint=HINT)


def _operations(model: ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node if node.domain in ONNX}
