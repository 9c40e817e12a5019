"""The floating-point type that a model computes in: float32, float16 or float64."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

REAL: dict[int, str] = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.DOUBLE: "float64"}


def in_float32(model: ModelProto) -> ModelProto:
    """Return a copy that computes in float32 what the model computed in float16 or float64."""
    copy = ModelProto()
    copy.CopyFrom(model)
    other = {TensorProto.FLOAT16, TensorProto.DOUBLE}
    for tensor in copy.graph.initializer:
        if tensor.data_type in other:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for node in copy.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in other:
                attribute.i = TensorProto.FLOAT
    del copy.graph.value_info[:]
    return copy


def computes_in(model: ModelProto) -> str:
    """Return the floating-point type of a model's weights: the narrowest of them."""
    kinds = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) > 0}
    return next((REAL[kind] for kind in (TensorProto.FLOAT16, TensorProto.FLOAT) if kind in kinds), "float64")
