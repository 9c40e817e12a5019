"""The derivative of each ONNX operation, in one table.

A rule gets a place to emit nodes, the forward node and the name of the gradient of its first output; it returns the
names of the gradients of the inputs in `node.active`, by position (more do no harm). All are of the type that the node
computes in; where it takes or gives integers or truth values, their gradients are brought to it and back
(`export.gradient`). To teach edgeproof another operation, write its rule and enter it here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from export.graph.graph import Emitter, Gradients, Node
from export.graph.ties import led_by_logits
from export.rules import (
    activations,
    arithmetic,
    convolution,
    elementwise,
    layout,
    matrix,
    normalization,
    pooling,
    reduction,
    resize,
    smooth,
)
from export.rules.indexing import sampling, scattering, selection
from export.surrogates import quantization, staircases

Rule = Callable[[Emitter, Node, str], Gradients]

OF_SHAPES = frozenset({"Shape", "Size"})
"""Operations whose outputs depend on the shape of their input alone: no gradient flows there."""

RULES: dict[str, Rule] = {
    "Abs": elementwise.absolute,
    "Add": arithmetic.add,
    "And": staircases.connective,
    "ArgMax": staircases.choice,
    "ArgMin": staircases.choice,
    "Atan": smooth.arc_tangent,
    "AveragePool": pooling.average_pool,
    "BatchNormalization": convolution.batch_normalization,
    "Cast": staircases.cast,
    "Ceil": staircases.straight_through,
    "Celu": activations.celu,
    "Clip": activations.clip,
    "Concat": layout.concat,
    "Conv": convolution.convolution,
    "ConvTranspose": convolution.transposed_convolution,
    "Cos": smooth.cosine,
    "CumSum": reduction.cumulative_sum,
    "DequantizeLinear": quantization.dequantize,
    "DepthToSpace": layout.depth_to_space,
    "Div": arithmetic.divide,
    "Dropout": activations.dropout,
    "Einsum": matrix.einsum,
    "Elu": activations.elu,
    "Equal": staircases.equal,
    "Erf": smooth.erf,
    "Exp": elementwise.exponential,
    "Expand": arithmetic.expand,
    "Flatten": layout.reshape,
    "Floor": staircases.straight_through,
    "Gather": selection.gather,
    "GatherElements": scattering.gather_elements,
    "GatherND": scattering.gather_nd,
    "Gelu": smooth.gelu,
    "Gemm": matrix.gemm,
    "GlobalAveragePool": pooling.global_average_pool,
    "GlobalMaxPool": reduction.global_max_pool,
    "Greater": staircases.comparison,
    "GreaterOrEqual": staircases.comparison,
    "GridSample": sampling.grid_sample,
    "HardSigmoid": activations.hard_sigmoid,
    "HardSwish": activations.hard_swish,
    "Hardmax": staircases.choice,
    "Identity": activations.identity,
    "InstanceNormalization": normalization.instance_normalization,
    "LRN": normalization.local_response_normalization,
    "LayerNormalization": normalization.layer_normalization,
    "LeakyRelu": activations.leaky_relu,
    "Less": staircases.comparison,
    "LessOrEqual": staircases.comparison,
    "Log": elementwise.logarithm,
    "LogSoftmax": activations.log_softmax,
    "MatMul": matrix.matmul,
    "Max": arithmetic.extreme,
    "MaxPool": pooling.max_pool,
    "Mean": arithmetic.mean,
    "Min": arithmetic.extreme,
    "Mish": smooth.mish,
    "Mul": arithmetic.multiply,
    "Neg": elementwise.negative,
    "Not": staircases.negation,
    "OneHot": staircases.one_hot,
    "Or": staircases.connective,
    "PRelu": activations.prelu,
    "Pad": layout.pad,
    "Pow": elementwise.power,
    "Reciprocal": elementwise.reciprocal,
    "QuantizeLinear": quantization.quantize,
    "ReduceL2": reduction.reduce_l2,
    "ReduceLogSumExp": reduction.reduce_log_sum_exp,
    "ReduceMax": reduction.reduce_extreme,
    "ReduceMean": reduction.reduce_mean,
    "ReduceMin": reduction.reduce_extreme,
    "ReduceSum": reduction.reduce_sum,
    "Relu": activations.relu,
    "Reshape": layout.reshape,
    "Resize": resize.resize,
    "Round": staircases.straight_through,
    "ScatterElements": scattering.scatter_elements,
    "ScatterND": scattering.scatter_nd,
    "Selu": activations.selu,
    "Sigmoid": smooth.sigmoid,
    "Sign": staircases.sign,
    "Sin": smooth.sine,
    "Slice": selection.slice_,
    "Softmax": activations.softmax,
    "Softplus": smooth.softplus,
    "Softsign": smooth.softsign,
    "SpaceToDepth": layout.space_to_depth,
    "Sqrt": elementwise.square_root,
    "Squeeze": layout.reshape,
    "Sub": arithmetic.subtract,
    "Sum": arithmetic.add,
    "Tanh": smooth.tanh,
    "ThresholdedRelu": activations.thresholded_relu,
    "Tile": layout.tile,
    "TopK": scattering.top_k,
    "Transpose": layout.transpose,
    "Unsqueeze": layout.reshape,
    "Where": arithmetic.where,
    "Xor": staircases.connective,
}

RULES_OF_MANY: dict[str, Callable[[Emitter, Node, Sequence[str | None]], Gradients]] = {"Split": selection.split}
"""Operations with several outputs: the rule gets the gradient of each, None where nothing read it."""

LED: dict[str, Callable[[Node], tuple[int, ...]]] = {
    "GatherElements": scattering.led_by_numbers,
    "GatherND": scattering.led_by_numbers,
    "Max": led_by_logits,
    "Min": led_by_logits,
    "Mul": staircases.led_by_slopes,
    "ScatterElements": scattering.led_by_numbers,
    "ScatterND": scattering.led_by_numbers,
    "Where": arithmetic.led_by_branches,
}
"""Operations of which not every input that depends on the image leads on: to the places of those that do."""

OF_INTEGERS = frozenset(
    {
        *("Add", "Mul", "Neg", "Sub", "Max", "Min", "Relu", "Clip", "MaxPool", "Resize"),
        *("Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice"),
        *("SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where"),
        *("Cast", "DequantizeLinear", "OneHot"),
        *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Not", "Or", "Xor"),
    }
)
"""Operations whose rules hold for integers and truth values that depend on the image; others are refused there."""
