"""The derivative of each ONNX operation, in one table.

A rule gets a place to emit nodes, the forward node and the name of the gradient of its first output; it returns the
names of the gradients of the inputs in `node.active`, by position (more do no harm). To teach edgeproof another
operation, write its rule and enter it here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from export.graph import Emitter, Node
from export.rules import activations, arithmetic, convolution, layout, matrix, pooling

Gradients = Mapping[int, str]
Rule = Callable[[Emitter, Node, str], Gradients]

RULES: dict[str, Rule] = {
    "Add": arithmetic.add,
    "AveragePool": pooling.average_pool,
    "BatchNormalization": convolution.batch_normalization,
    "Clip": activations.clip,
    "Concat": layout.concat,
    "Conv": convolution.convolution,
    "Div": arithmetic.divide,
    "Flatten": layout.reshape,
    "Gemm": matrix.gemm,
    "GlobalAveragePool": pooling.global_average_pool,
    "Identity": activations.identity,
    "LogSoftmax": activations.log_softmax,
    "MatMul": matrix.matmul,
    "MaxPool": pooling.max_pool,
    "Mul": arithmetic.multiply,
    "Pad": layout.pad,
    "ReduceMean": pooling.reduce_mean,
    "Relu": activations.relu,
    "Reshape": layout.reshape,
    "Sigmoid": activations.sigmoid,
    "Softmax": activations.softmax,
    "Sub": arithmetic.subtract,
    "Tanh": activations.tanh,
    "Transpose": layout.transpose,
}
