"""A case of each operation with a rule: its nodes, and the same in torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from tests.export.rules.cases import Case

CROPPING = "Pad that also crops, on some axes"
IN_FLOAT_ALONE = {
    CROPPING,
    "Celu",
    "Cast to double and back",
    "Conv with weights stored as integers",
    "ConvTranspose in groups",
    "QuantizeLinear",
    "QuantizeLinear behind a ReLU",
    "QuantizeLinear by channel",
    "QuantizeLinear in place of a ReLU",
    "Resize along axes counted from the end",
    "Resize linearly",
    "Resize to the nearest",
    "Resize with an empty region",
    "Resize with empty scales",
}
"""What onnx's own evaluator lacks, or what ONNX defines in float32 alone: tested on ONNX Runtime."""
FLOAT_ATTRIBUTES = {"HardSwish": 1e-6, "Selu": 1e-6}
"""Attributes are float32 in ONNX, which limits how near these come to torch's float64."""
RANDOM = np.random.default_rng(0)


def normal(*shape: int) -> Any:
    return RANDOM.standard_normal(shape)


def positive(*shape: int) -> Any:
    return RANDOM.random(shape) + 0.5


def batch_norm(x: Any, scale: Any, bias: Any, mean: Any, var: Any) -> Any:
    return F.batch_norm(x, mean, var, scale, bias, False, 0.0, 1e-5)


CONSTANT_GRID = "s = Shape <end=1> (x)\nr = Concat <axis=0> (s, one)\ng = Expand (places, r)"
SOMEWHERE = {"one": np.asarray([1, 1, 1]), "places": RANDOM.random((1, 3, 5, 2)) * 2.4 - 1.2}
PLACES: dict[str, Any] = {"start": np.asarray([0]), "two": np.asarray([2]), "axis": np.asarray([1]), "far": 1.3}
GRID = "p = Slice (x, start, two, axis)\nt = Transpose <perm=[0,2,3,1]> (p)\nh = Tanh (t)\ng = Mul (h, far)"


def grid(x: Any, far: float = PLACES["far"]) -> Any:
    """Return the places that GRID makes of an image, some of them beyond its border."""
    return far * x[:, :2].permute(0, 2, 3, 1).tanh()


def scattered(x: Any, places: Any, values: Any) -> Any:
    copy = x.clone()
    copy[:, places[:, 0], places[:, 1]] = values
    return copy


CASES = {
    "Add of a constant per channel": Case("y = Add (x, c)", lambda x, c: x + c, {"c": normal(4, 1, 1)}),
    "Add of x to itself": Case("y = Add (x, x)", lambda x: x + x),
    "Add of two branches": Case("a = Tanh (x)\ny = Add (x, a)", lambda x: x + x.tanh()),
    "Add widening x": Case("m = GlobalAveragePool (x)\ny = Add (m, x)", lambda x: x.mean((2, 3), keepdim=True) + x),
    "Sub from a constant": Case("y = Sub (c, x)", lambda x, c: c - x, {"c": normal(1, 4, 1, 1)}),
    "Sub of two branches": Case("a = Sigmoid (x)\ny = Sub (x, a)", lambda x: x - x.sigmoid()),
    "Mul by a scalar": Case("y = Mul (x, c)", lambda x, c: x * c, {"c": normal()}),
    "Mul of x by itself": Case("y = Mul (x, x)", lambda x: x * x),
    "Mul by a gate per channel": Case(
        "m = GlobalAveragePool (x)\ns = Sigmoid (m)\ny = Mul (x, s)",
        lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    ),
    "Mul by a gate per pixel": Case(
        "m = ReduceMean <keepdims=1> (x, axes)\ny = Mul (m, x)",
        lambda x, axes: x.mean(1, keepdim=True) * x,
        {"axes": np.asarray([1])},
    ),
    "Div by a constant": Case("y = Div (x, c)", lambda x, c: x / c, {"c": positive(1, 4, 1, 1)}),
    "Div of a constant": Case("s = Sigmoid (x)\ny = Div (c, s)", lambda x, c: c / x.sigmoid(), {"c": normal(4, 1, 1)}),
    "Div of two branches": Case("s = Sigmoid (x)\ny = Div (x, s)", lambda x: x / x.sigmoid()),
    "Relu": Case("y = Relu (x)", torch.relu),
    "Clip on both sides": Case(
        "y = Clip (x, low, high)", lambda x, low, high: x.clamp(low, high), {"low": -0.5, "high": 0.7}
    ),
    "Clip below": Case("y = Clip (x, low)", lambda x, low: x.clamp(min=low), {"low": -0.5}),
    "Clip above": Case("y = Clip (x, , high)", lambda x, high: x.clamp(max=high), {"high": 0.3}),
    "Clip without bounds": Case("y = Clip (x)", lambda x: x),
    "Clip behind a convolution": Case(
        "c = Conv (x, w)\ny = Clip (c, low, high)",
        lambda x, w, low, high: F.conv2d(x, w).clamp(low, high),
        {"w": normal(5, 4, 1, 1), "low": 0.0, "high": 1.5},
    ),
    "Sigmoid": Case("y = Sigmoid (x)", torch.sigmoid),
    "Tanh": Case("y = Tanh (x)", torch.tanh),
    "Identity": Case("y = Identity (x)", lambda x: x),
    "Softmax over channels": Case("y = Softmax <axis=1> (x)", lambda x: x.softmax(1)),
    "Softmax over the last axis": Case("y = Softmax (x)", lambda x: x.softmax(-1)),
    "LogSoftmax over channels": Case("y = LogSoftmax <axis=1> (x)", lambda x: x.log_softmax(1)),
    "LogSoftmax over the last axis": Case("y = LogSoftmax <axis=-1> (x)", lambda x: x.log_softmax(-1)),
    "Conv 1x1": Case("y = Conv (x, w)", F.conv2d, {"w": normal(5, 4, 1, 1)}),
    "Conv 3x3 padded": Case(
        "y = Conv <pads=[1,1,1,1]> (x, w, b)",
        lambda x, w, b: F.conv2d(x, w, b, padding=1),
        {"w": normal(5, 4, 3, 3), "b": normal(5)},
    ),
    "Conv strided": Case(
        "y = Conv <strides=[2,2], pads=[1,1,1,1]> (x, w)",
        lambda x, w: F.conv2d(x, w, stride=2, padding=1),
        {"w": normal(5, 4, 3, 3)},
    ),
    "Conv dilated in groups": Case(
        "y = Conv <dilations=[2,1], pads=[2,0,2,0], group=2> (x, w)",
        lambda x, w: F.conv2d(x, w, dilation=(2, 1), padding=(2, 0), groups=2),
        {"w": normal(6, 2, 3, 3)},
    ),
    "Conv depthwise strided": Case(
        "y = Conv <strides=[2,3], pads=[1,1,1,1], group=4> (x, w)",
        lambda x, w: F.conv2d(x, w, stride=(2, 3), padding=1, groups=4),
        {"w": normal(8, 1, 3, 3)},
    ),
    "Conv padded on one side": Case(
        "y = Conv <pads=[0,1,2,0]> (x, w)",
        lambda x, w: F.conv2d(F.pad(x, (1, 0, 0, 2)), w),
        {"w": normal(5, 4, 3, 2)},
    ),
    "Conv padded beyond its kernel": Case(
        "y = Conv <pads=[2,2,2,2]> (x, w)", lambda x, w: F.conv2d(x, w, padding=2), {"w": normal(5, 4, 2, 1)}
    ),
    "Conv with automatic padding": Case(
        'y = Conv <auto_pad="SAME_LOWER", strides=[2,2]> (x, w)',
        lambda x, w: F.conv2d(F.pad(x, (1, 0, 1, 1)), w, stride=2),
        {"w": normal(5, 4, 3, 3)},
    ),
    "Conv strided and padded at the end alone": Case(
        'y = Conv <auto_pad="SAME_UPPER", strides=[2,2]> (x, w)',
        lambda x, w: F.conv2d(F.pad(x, (0, 1, 1, 1)), w, stride=2),
        {"w": normal(5, 4, 3, 3)},
    ),
    "BatchNormalization": Case(
        "y = BatchNormalization (x, scale, bias, mean, var)",
        batch_norm,
        {"scale": normal(4), "bias": normal(4), "mean": normal(4), "var": positive(4)},
    ),
    "GlobalAveragePool": Case("y = GlobalAveragePool (x)", lambda x: x.mean((2, 3), keepdim=True)),
    "AveragePool": Case(
        "y = AveragePool <kernel_shape=[2,3], strides=[2,1]> (x)", lambda x: F.avg_pool2d(x, (2, 3), (2, 1))
    ),
    "AveragePool counting padding": Case(
        "y = AveragePool <kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], count_include_pad=1> (x)",
        lambda x: F.avg_pool2d(x, 3, 2, 1),
    ),
    "AveragePool not counting padding": Case(
        "y = AveragePool <kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]> (x)",
        lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    ),
    "MaxPool": Case("y = MaxPool <kernel_shape=[2,2], strides=[2,2]> (x)", lambda x: F.max_pool2d(x, 2)),
    "MaxPool overlapping and padded": Case(
        "n = Sub (x, c)\ny = MaxPool <kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]> (n)",
        lambda x, c: F.max_pool2d(x - c, 3, 2, 1),
        {"c": 9.0},
    ),
    "MaxPool dilated": Case(
        "y = MaxPool <kernel_shape=[2,2], dilations=[2,2]> (x)",
        lambda x: F.max_pool2d(x, 2, stride=1, dilation=2),
    ),
    "MaxPool rounding up": Case(
        "y = MaxPool <kernel_shape=[2,2], strides=[2,2], ceil_mode=1> (x)",
        lambda x: F.max_pool2d(x, 2, ceil_mode=True),
    ),
    "MaxPool padded at the end alone": Case(
        "n = Sub (x, c)\ny = MaxPool <kernel_shape=[3,3], strides=[2,2], pads=[0,0,1,1]> (n)",
        lambda x, c: F.max_pool2d(F.pad(x - c, (0, 1, 0, 1), value=-1e9), 3, 2),
        {"c": 9.0},
    ),
    "MaxPool with ties": Case(
        "r = Relu (x)\ny = MaxPool <kernel_shape=[2,2]> (r)", lambda x: F.max_pool2d(x.relu(), 2, 1)
    ),
    "ReduceMean over pixels": Case(
        "y = ReduceMean <keepdims=0> (x, axes)", lambda x, axes: x.mean((2, 3)), {"axes": np.asarray([-1, 2])}
    ),
    "ReduceMean over channels": Case(
        "y = ReduceMean (x, axes)", lambda x, axes: x.mean(1, keepdim=True), {"axes": np.asarray([1])}
    ),
    "Reshape": Case(
        "y = Reshape (x, shape)",
        lambda x, shape: x.reshape(-1, 8, 21),
        {"shape": np.asarray([-1, 8, 21])},
    ),
    "Flatten": Case("y = Flatten <axis=1> (x)", lambda x: x.flatten(1)),
    "Transpose": Case("y = Transpose <perm=[0,2,3,1]> (x)", lambda x: x.permute(0, 2, 3, 1)),
    "Concat": Case(
        "a = Tanh (x)\ng = GlobalAveragePool (x)\ns = Mul (a, g)\ny = Concat <axis=1> (x, s, a)",
        lambda x: torch.cat([x, x.tanh() * x.mean((2, 3), keepdim=True), x.tanh()], 1),
    ),
    "Pad": Case(
        "y = Pad (x, pads)",
        lambda x, pads: F.pad(x, (1, 0, 2, 1)),
        {"pads": np.asarray([0, 0, 2, 1, 0, 0, 1, 0])},
    ),
    CROPPING: Case(
        "y = Pad (x, pads, , axes)",
        lambda x, pads, axes: F.pad(x, (0, 0, -1, 2)),
        {"pads": np.asarray([-1, 2]), "axes": np.asarray([2])},
    ),
    "Gemm": Case(
        "f = Flatten (x)\ny = Gemm <alpha=0.5, beta=2.0> (f, w, c)",
        lambda x, w, c: 0.5 * x.flatten(1) @ w + 2 * c,
        {"w": normal(168, 5), "c": normal(5)},
    ),
    "Gemm transposed": Case(
        "f = Flatten (x)\ny = Gemm <transB=1> (f, w)", lambda x, w: x.flatten(1) @ w.T, {"w": normal(5, 168)}
    ),
    "Gemm of the transposed input": Case(
        "f = Flatten (x)\nt = Transpose <perm=[1,0]> (f)\ny = Gemm <transA=1, transB=1> (t, w)",
        lambda x, w: x.flatten(1) @ w.T,
        {"w": normal(5, 168)},
    ),
    "Gemm with a bias from the input": Case(
        "f = Flatten (x)\nt = Tanh (f)\ny = Gemm <beta=3.0> (f, w, t)",
        lambda x, w: x.flatten(1) @ w + 3 * x.flatten(1).tanh(),
        {"w": normal(168, 168)},
    ),
    "MatMul by weights": Case("y = MatMul (x, w)", lambda x, w: x @ w, {"w": normal(6, 3)}),
    "MatMul by a stack of weights": Case("y = MatMul (w, x)", lambda x, w: w @ x, {"w": normal(4, 3, 7)}),
    "MatMul of two branches": Case(
        "t = Transpose <perm=[0,1,3,2]> (x)\ny = MatMul (x, t)", lambda x: x @ x.transpose(2, 3)
    ),
    "Cast to double and back": Case("d = Cast <to=11> (x)\ny = Cast <to=1> (d)", lambda x: x),
    "Dropout in evaluation mode": Case("y = Dropout (x)", lambda x: x),
    "Abs": Case("y = Abs (x)", torch.abs),
    "Neg": Case("y = Neg (x)", torch.neg),
    "Exp": Case("y = Exp (x)", torch.exp),
    "Log": Case("s = Sigmoid (x)\ny = Log (s)", lambda x: x.sigmoid().log()),
    "Sqrt": Case("s = Sigmoid (x)\ny = Sqrt (s)", lambda x: x.sigmoid().sqrt()),
    "Reciprocal": Case("s = Sigmoid (x)\ny = Reciprocal (s)", lambda x: 1 / x.sigmoid()),
    "Pow of a negative base by two": Case("y = Pow (x, p)", lambda x, p: x**p, {"p": 2.0}),
    "Pow by three": Case("y = Pow (x, p)", lambda x, p: x**p, {"p": 3.0}),
    "Pow by a negative fraction": Case("s = Sigmoid (x)\ny = Pow (s, p)", lambda x, p: x.sigmoid() ** p, {"p": -0.5}),
    "Pow by exponents that widen it": Case(
        "m = GlobalAveragePool (x)\ns = Sigmoid (m)\ny = Pow (s, p)",
        lambda x, p: x.mean((2, 3), keepdim=True).sigmoid() ** p,
        {"p": positive(7, 6)},
    ),
    "Erf": Case("y = Erf (x)", torch.erf),
    "Gelu": Case("y = Gelu (x)", F.gelu),
    "Gelu by Tanh": Case('y = Gelu <approximate="tanh"> (x)', lambda x: F.gelu(x, approximate="tanh")),
    "Gelu written out with Erf": Case(
        "d = Div (x, root)\ne = Erf (d)\na = Add (e, one)\nm = Mul (x, a)\ny = Mul (m, half)",
        lambda x, root, one, half: F.gelu(x),
        {"root": 2**0.5, "one": 1.0, "half": 0.5},
    ),
    "SiLU written out": Case("s = Sigmoid (x)\ny = Mul (x, s)", F.silu),
    "Softplus": Case("y = Softplus (x)", F.softplus),
    "Softsign": Case("y = Softsign (x)", F.softsign),
    "Mish": Case("y = Mish (x)", F.mish),
    "LeakyRelu": Case("y = LeakyRelu <alpha=0.25> (x)", lambda x: F.leaky_relu(x, 0.25)),
    "LeakyRelu that turns": Case("y = LeakyRelu <alpha=-0.5> (x)", lambda x: F.leaky_relu(x, -0.5)),
    "PRelu of one slope a channel": Case(
        "y = PRelu (x, s)", lambda x, s: F.prelu(x, s.flatten()), {"s": normal(4, 1, 1)}
    ),
    "PRelu of one slope": Case("y = PRelu (x, s)", lambda x, s: F.prelu(x, s), {"s": normal(1)}),
    "ThresholdedRelu": Case("y = ThresholdedRelu <alpha=0.3> (x)", lambda x: F.threshold(x, 0.3, 0.0)),
    "Elu": Case("y = Elu <alpha=0.75> (x)", lambda x: F.elu(x, 0.75)),
    "Selu": Case("y = Selu (x)", F.selu),
    "Celu": Case("y = Celu <alpha=0.5> (x)", lambda x: F.celu(x, 0.5)),
    "HardSigmoid": Case("y = HardSigmoid <alpha=0.25> (x)", lambda x: (x / 4 + 0.5).clamp(0, 1)),
    "HardSwish": Case("n = Mul (x, c)\ny = HardSwish (n)", lambda x, c: F.hardswish(x * c), {"c": 4.0}),
    "Sum of three": Case("t = Tanh (x)\ny = Sum (x, t, c)", lambda x, c: x + x.tanh() + c, {"c": normal(4, 1, 1)}),
    "Mean of two": Case("t = Tanh (x)\ny = Mean (x, t)", lambda x: (x + x.tanh()) / 2),
    "Max of two branches": Case("n = Neg (x)\ny = Max (n, x)", lambda x: torch.maximum(-x, x)),
    "Max of three": Case(
        "t = Tanh (x)\ny = Max (x, c, t)", lambda x, c: torch.maximum(torch.maximum(x, c), x.tanh()), {"c": 0.4}
    ),
    "Max of a tie": Case("a = Identity (x)\ny = Max (x, a)", lambda x: torch.maximum(x, x)),
    "Min with a constant per channel": Case("y = Min (x, c)", lambda x, c: torch.minimum(x, c), {"c": normal(4, 1, 1)}),
    "Where": Case(
        "y = Where (c, x, t)",
        lambda x, c, t: torch.where(c, x, t),
        {"c": RANDOM.random((4, 7, 6)) < 0.5, "t": normal(1, 6)},
    ),
    "Where of two branches": Case(
        "t = Tanh (x)\nc = Greater (x, z)\ny = Where (c, t, x)",
        lambda x, z: torch.where(x > z, x.tanh(), x),
        {"z": 0.1},
    ),
    "Expand": Case(
        "m = GlobalAveragePool (x)\ny = Expand (m, shape)",
        lambda x, shape: x.mean((2, 3), keepdim=True).expand(-1, -1, 7, 6),
        {"shape": np.asarray([1, 4, 7, 6])},
    ),
    "Squeeze": Case(
        "m = GlobalAveragePool (x)\ny = Squeeze (m, axes)",
        lambda x, axes: x.mean((2, 3)),
        {"axes": np.asarray([-1, 2])},
    ),
    "Unsqueeze": Case("y = Unsqueeze (x, axes)", lambda x, axes: x[:, :, None], {"axes": np.asarray([2])}),
    "Unsqueeze before the batch": Case(
        "u = Unsqueeze (x, axes)\nm = Mul (u, c)\ny = Gather <axis=0> (m, first)",
        lambda x, axes, c, first: (x[None] * c)[0],
        {"axes": np.asarray([0]), "c": normal(1, 4, 1, 1), "first": np.asarray(0)},
    ),
    "Reshape that moves numbers into the batch and back": Case(
        "r = Reshape (x, wide)\nt = Tanh (r)\ny = Reshape (t, back)",
        lambda x, wide, back: x.reshape(-1, 1, 7, 6).tanh().reshape(-1, 4, 7, 6),
        {"wide": np.asarray([-1, 1, 7, 6]), "back": np.asarray([-1, 4, 7, 6])},
    ),
    "Slice": Case(
        "y = Slice (x, starts, ends, axes)",
        lambda x, starts, ends, axes: x[:, 1:3, :, :-2],
        {"starts": np.asarray([1, 0]), "ends": np.asarray([3, -2]), "axes": np.asarray([1, -1])},
    ),
    "Slice with steps, backwards too": Case(
        "y = Slice (x, starts, ends, axes, steps)",
        lambda x, starts, ends, axes, steps: x[:, :, 1::2].flip(-1)[:, :, :, ::2],
        {
            "starts": np.asarray([0, 1, -1]),
            "ends": np.asarray([2**62, 2**31 - 1, -(2**62)]),
            "axes": np.asarray([0, 2, 3]),
            "steps": np.asarray([1, 2, -2]),
        },
    ),
    "Split": Case(
        "a, b = Split <axis=1> (x, sizes)\nt = Tanh (a)\ny = Concat <axis=1> (b, t)",
        lambda x, sizes: torch.cat([x[:, 1:], x[:, :1].tanh()], 1),
        {"sizes": np.asarray([1, 3])},
    ),
    "Split with a part that nobody reads": Case(
        "a, b, c = Split <axis=-1, num_outputs=3> (x)\ny = Mul (a, c)", lambda x: x[..., :2] * x[..., 4:]
    ),
    "Gather one": Case("y = Gather <axis=2> (x, i)", lambda x, i: x[:, :, 3], {"i": np.asarray(-4)}),
    "Gather some, one of them twice": Case(
        "y = Gather <axis=1> (x, i)", lambda x, i: x[:, [2, 0, 2]], {"i": np.asarray([2, 0, -2])}
    ),
    "Gather a table": Case(
        "y = Gather <axis=3> (x, i)", lambda x, i: x[..., i], {"i": np.asarray([[0, 1, 2], [5, 3, 1]])}
    ),
    "DepthToSpace": Case(
        "y = DepthToSpace <blocksize=2> (x)",
        lambda x: x.reshape(-1, 2, 2, 1, 7, 6).permute(0, 3, 4, 1, 5, 2).reshape(-1, 1, 14, 12),
    ),
    "DepthToSpace in the order of torch": Case(
        'y = DepthToSpace <blocksize=2, mode="CRD"> (x)', lambda x: F.pixel_shuffle(x, 2)
    ),
    "SpaceToDepth": Case(
        "y = SpaceToDepth <blocksize=3> (x)",
        lambda x: x.reshape(-1, 4, 2, 3, 2, 3).permute(0, 3, 5, 1, 2, 4).reshape(-1, 36, 2, 2),
        image=(4, 6, 6),
    ),
    "ReduceSum over pixels": Case(
        "y = ReduceSum <keepdims=0> (x, axes)", lambda x, axes: x.sum((2, 3)), {"axes": np.asarray([2, 3])}
    ),
    "ReduceMax over pixels": Case(
        "y = ReduceMax <keepdims=0> (x, axes)", lambda x, axes: x.amax((2, 3)), {"axes": np.asarray([2, 3])}
    ),
    "ReduceMin over channels": Case(
        "y = ReduceMin (x, axes)", lambda x, axes: x.amin(1, keepdim=True), {"axes": np.asarray([1])}
    ),
    "ReduceL2": Case(
        "n = ReduceL2 <keepdims=1> (x, axes)\ny = Div (x, n)",
        lambda x, axes: F.normalize(x, dim=1),
        {"axes": np.asarray([1])},
    ),
    "GlobalMaxPool": Case("y = GlobalMaxPool (x)", lambda x: x.amax((2, 3), keepdim=True)),
    "LayerNormalization": Case(
        "y = LayerNormalization <epsilon=0.0009765625> (x, s, b)",
        lambda x, s, b: F.layer_norm(x, (6,), s, b, 2**-10),
        {"s": normal(6), "b": normal(6)},
    ),
    "LayerNormalization over pixels": Case(
        "y = LayerNormalization <axis=2> (x, s)", lambda x, s: F.layer_norm(x, (7, 6), s), {"s": normal(7, 6)}
    ),
    "InstanceNormalization": Case(
        "y = InstanceNormalization (x, s, b)",
        lambda x, s, b: F.instance_norm(x, weight=s, bias=b),
        {"s": normal(4), "b": normal(4)},
    ),
    "LRN": Case(
        "y = LRN <size=3, alpha=0.5, beta=0.75, bias=2.0> (x)",
        lambda x: F.local_response_norm(x, 3, 0.5, 0.75, 2.0),
    ),
    "Resize to the nearest": Case(
        'y = Resize <coordinate_transformation_mode="asymmetric", mode="nearest", nearest_mode="floor"> (x, , scales)',
        lambda x, scales: F.interpolate(x, scale_factor=(2, 3)),
        {"scales": np.asarray([1, 1, 2, 3], np.float32)},
    ),
    "Resize linearly": Case(
        'y = Resize <coordinate_transformation_mode="half_pixel", mode="linear", axes=[2,3]> (x, , , sizes)',
        lambda x, sizes: F.interpolate(x, size=(10, 4), mode="bilinear"),
        {"sizes": np.asarray([10, 4])},
    ),
    "Resize with an empty region": Case(
        'y = Resize <coordinate_transformation_mode="asymmetric", mode="nearest", nearest_mode="floor">'
        " (x, region, scales)",
        lambda x, region, scales: F.interpolate(x, scale_factor=(2, 3)),
        {"region": np.zeros(0, np.float32), "scales": np.asarray([1, 1, 2, 3], np.float32)},
    ),
    "Resize with empty scales": Case(
        'y = Resize <mode="linear", axes=[-2,-1]> (x, region, scales, sizes)',
        lambda x, region, scales, sizes: F.interpolate(x, size=(10, 4), mode="bilinear"),
        {"region": np.zeros(0, np.float32), "scales": np.zeros(0, np.float32), "sizes": np.asarray([10, 4])},
    ),
    "Resize along axes counted from the end": Case(
        'y = Resize <coordinate_transformation_mode="asymmetric", mode="nearest", nearest_mode="floor", axes=[-2,-1]>'
        " (x, , scales)",
        lambda x, scales: F.interpolate(x, scale_factor=(2, 3)),
        {"scales": np.asarray([2, 3], np.float32)},
    ),
    "ConvTranspose": Case(
        "y = ConvTranspose <strides=[2,1], pads=[1,0,1,0], output_padding=[1,0], kernel_shape=[3,2],"
        " dilations=[1,2], group=1> (x, w)",
        lambda x, w: F.conv_transpose2d(x, w, stride=(2, 1), padding=(1, 0), output_padding=(1, 0), dilation=(1, 2)),
        {"w": normal(4, 3, 3, 2)},
    ),
    "ConvTranspose in groups": Case(
        "y = ConvTranspose <strides=[2,2], pads=[1,1,1,1], output_padding=[1,1], group=2, kernel_shape=[3,3],"
        " dilations=[1,1]> (x, w)",
        lambda x, w: F.conv_transpose2d(x, w, stride=2, padding=1, output_padding=1, groups=2),
        {"w": normal(4, 3, 3, 3)},
    ),
    "QuantizeLinear": Case(
        "q = QuantizeLinear (x, scale, zero)\ny = DequantizeLinear (q, scale, zero)",
        lambda x, scale, zero: torch.fake_quantize_per_tensor_affine(x, float(scale), int(zero), -128, 127),
        {"scale": 0.006, "zero": np.int8(-30)},
    ),
    "QuantizeLinear in place of a ReLU": Case(
        "q = QuantizeLinear (x, scale, zero)\ny = DequantizeLinear (q, scale, zero)",
        lambda x, scale, zero: torch.fake_quantize_per_tensor_affine(x, float(scale), int(zero), 0, 255),
        {"scale": 0.006, "zero": np.uint8(0)},
    ),
    "QuantizeLinear behind a ReLU": Case(
        "r = Relu (x)\nq = QuantizeLinear (r, scale, zero)\ny = DequantizeLinear (q, scale, zero)",
        lambda x, scale, zero: torch.fake_quantize_per_tensor_affine(x.relu(), float(scale), int(zero), -128, 127),
        {"scale": 0.006, "zero": np.int8(0)},
    ),
    "QuantizeLinear by channel": Case(
        "q = QuantizeLinear <axis=1> (x, scale, zero)\ny = DequantizeLinear <axis=1> (q, scale, zero)",
        lambda x, scale, zero: torch.fake_quantize_per_channel_affine(x, scale.float(), zero.int(), 1, -128, 127),
        {"scale": np.asarray([0.002, 0.004, 0.006, 0.02]), "zero": np.asarray([0, -30, 5, 100], np.int8)},
    ),
    "Conv with weights stored as integers": Case(
        "v = DequantizeLinear <axis=0> (w, scale)\ny = Conv <kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]> (x, v)",
        lambda x, w, scale: F.conv2d(x, w * scale.view(-1, 1, 1, 1), stride=2, padding=1),
        {"w": np.arange(-54, 54, dtype=np.int8).reshape(3, 4, 3, 3), "scale": np.asarray([0.01, 0.02, 0.03])},
    ),
    "Einsum with weights": Case(
        'y = Einsum <equation="bchw,dc->bdhw"> (x, w)',
        lambda x, w: torch.einsum("bchw,dc->bdhw", x, w),
        {"w": normal(3, 4)},
    ),
    "Einsum of two branches": Case(
        'y = Einsum <equation="bchw, bdhw -> bcd"> (x, x)', lambda x: torch.einsum("bchw,bdhw->bcd", x, x)
    ),
    "Pad by reflection": Case(
        'y = Pad <mode="reflect"> (x, pads)',
        lambda x, pads: F.pad(x, (2, 1, 3, 0), "reflect"),
        {"pads": np.asarray([0, 0, 3, 2, 0, 0, 0, 1])},
    ),
    "Pad by the edge": Case(
        'y = Pad <mode="edge"> (x, pads)',
        lambda x, pads: F.pad(x, (2, 1, 3, 0), "replicate"),
        {"pads": np.asarray([0, 0, 3, 2, 0, 0, 0, 1])},
    ),
    "Pad round the image": Case(
        'y = Pad <mode="wrap"> (x, pads, , axes)',
        lambda x, pads, axes: F.pad(x, (2, 1, 0, 0), "circular"),
        {"pads": np.asarray([2, 1]), "axes": np.asarray([-1])},
    ),
    "Tile": Case("y = Tile (x, r)", lambda x, r: x.repeat(1, 2, 1, 3), {"r": np.asarray([1, 2, 1, 3])}),
    "TopK": Case("y, i = TopK (x, k)", lambda x, k: x.topk(3).values, {"k": np.asarray([3])}),
    "TopK of the smallest channels": Case(
        "y, i = TopK <axis=1, largest=0> (x, k)",
        lambda x, k: x.topk(2, 1, largest=False).values,
        {"k": np.asarray([2])},
    ),
    "GatherElements where TopK says": Case(
        "v, i = TopK <axis=1> (x, k)\nt = Tanh (x)\ny = GatherElements <axis=1> (t, i)",
        lambda x, k: x.tanh().gather(1, x.topk(2, 1).indices),
        {"k": np.asarray([2])},
    ),
    "GatherND, one of them twice": Case(
        "t = Transpose <perm=[1,2,3,0]> (x)\ng = GatherND (t, i)\ny = Transpose <perm=[2,1,0]> (g)",
        lambda x, i: x[:, i[:, 0], i[:, 1]].transpose(1, 2),
        {"i": np.asarray([[0, 1], [3, 6], [0, 1], [2, 5]])},
    ),
    "GatherND in each image": Case(
        "v, k = TopK <axis=1> (x, three)\nr = Reshape (k, rows)\ni = Unsqueeze (r, last)\n"
        "t = Tanh (x)\ny = GatherND <batch_dims=1> (t, i)",
        lambda x, *rest: x.tanh()[torch.arange(len(x))[:, None], x.topk(3, 1).indices.flatten(1)],
        {"three": np.asarray([3]), "rows": np.asarray([0, -1]), "last": np.asarray([2])},
    ),
    "GatherND in each channel, from the end too": Case(
        "s = Shape <end=1> (x)\nr = Concat <axis=0> (s, sizes)\ni = Expand (at, r)\ny = GatherND <batch_dims=2> (x, i)",
        lambda x, sizes, at: x[:, torch.arange(4)[:, None], at[0, ..., 0], at[0, ..., 1]],
        {"sizes": np.asarray([4, 5, 2]), "at": RANDOM.integers([-7, -6], [7, 6], (1, 4, 5, 2))},
    ),
    "GatherND of the image by its number": Case(
        "s = Shape <end=1> (x)\nq = Squeeze (s)\nn = Range (zero, q, one)\nu = Reshape (n, column)\n"
        "r = Concat <axis=0> (s, sizes)\na = Expand (u, r)\nb = Expand (at, r)\ni = Concat <axis=-1> (a, b)\n"
        "y = GatherND (x, i)",
        lambda x, *rest: x[:, rest[-1][0, :, 0]],
        {
            "zero": np.asarray(0),
            "one": np.asarray(1),
            "column": np.asarray([-1, 1, 1]),
            "sizes": np.asarray([3, 1]),
            "at": np.asarray([[[2], [-1], [2]]]),
        },
    ),
    "ScatterND": Case(
        "t = Transpose <perm=[1,2,3,0]> (x)\ng = GatherND (t, from)\nh = Tanh (g)\ns = ScatterND (t, i, h)\n"
        "y = Transpose <perm=[3,0,1,2]> (s)",
        lambda x, i, start: scattered(x, i, x[:, start[:, 0], start[:, 1]].tanh()),
        {"i": np.asarray([[0, 1], [3, 6]]), "from": np.asarray([[1, 1], [3, 6]])},
    ),
    "ScatterND that adds": Case(
        "t = Transpose <perm=[1,2,3,0]> (x)\ng = GatherND (t, i)\nh = Tanh (g)\n"
        's = ScatterND <reduction="add"> (t, i, h)\ny = Transpose <perm=[3,0,1,2]> (s)',
        lambda x, i: scattered(x, i, (x + x.tanh())[:, i[:, 0], i[:, 1]]),
        {"i": np.asarray([[0, 1], [3, 6]])},
    ),
    "ScatterElements": Case(
        "v, i = TopK <axis=1> (x, k)\nt = Tanh (v)\ny = ScatterElements <axis=1> (x, i, t)",
        lambda x, k: x.scatter(1, x.topk(2, 1).indices, x.topk(2, 1).values.tanh()),
        {"k": np.asarray([2])},
    ),
    "ScatterElements that adds": Case(
        'v, i = TopK <axis=1> (x, k)\nt = Tanh (v)\ny = ScatterElements <axis=1, reduction="add"> (x, i, t)',
        lambda x, k: x.scatter_add(1, x.topk(2, 1).indices, x.topk(2, 1).values.tanh()),
        {"k": np.asarray([2])},
    ),
    "ReduceLogSumExp": Case(
        "y = ReduceLogSumExp <keepdims=0> (x, axes)", lambda x, axes: x.logsumexp((1, 3)), {"axes": np.asarray([1, 3])}
    ),
    "ReduceL1": Case("y = ReduceL1 (x, axes)", lambda x, axes: x.abs().sum(1, True), {"axes": np.asarray([1])}),
    "CumSum": Case("y = CumSum (x, axis)", lambda x, axis: x.cumsum(-1), {"axis": np.asarray(-1)}),
    "CumSum from the end, without itself": Case(
        "y = CumSum <reverse=1, exclusive=1> (x, axis)",
        lambda x, axis: x.flip(2).cumsum(2).flip(2) - x,
        {"axis": np.asarray(2)},
    ),
    "Sin": Case("y = Sin (x)", lambda x: x.sin()),
    "Cos": Case("y = Cos (x)", lambda x: x.cos()),
    "Atan": Case("y = Atan (x)", lambda x: x.atan()),
    "GridSample": Case(
        f"{GRID}\ny = GridSample (x, g)",
        lambda x, *rest: F.grid_sample(x, grid(x), align_corners=False),
        PLACES,
    ),
    "GridSample at the border": Case(
        f'{GRID}\ny = GridSample <padding_mode="border", align_corners=1> (x, g)',
        lambda x, *rest: F.grid_sample(x, grid(x), padding_mode="border", align_corners=True),
        PLACES,
    ),
    "GridSample in a mirror": Case(
        f'{GRID}\ny = GridSample <padding_mode="reflection"> (x, g)',
        lambda x, *rest: F.grid_sample(x, grid(x), padding_mode="reflection", align_corners=False),
        PLACES,
    ),
    "GridSample cubic": Case(
        f'{GRID}\ny = GridSample <mode="cubic", align_corners=1> (x, g)',
        lambda x, *rest: F.grid_sample(x, grid(x), mode="bicubic", align_corners=True),
        PLACES,
    ),
    "GridSample at constant places": Case(
        f"{CONSTANT_GRID}\ny = GridSample (x, g)",
        lambda x, one, places: F.grid_sample(x, places.expand(len(x), -1, -1, -1), align_corners=False),
        SOMEWHERE,
    ),
    "GridSample at the nearest": Case(
        f'{CONSTANT_GRID}\ny = GridSample <mode="nearest"> (x, g)',
        lambda x, one, places: F.grid_sample(x, places.expand(len(x), -1, -1, -1), mode="nearest", align_corners=False),
        SOMEWHERE,
    ),
    "Attention": Case(
        "t = Transpose <perm=[0,1,3,2]> (x)\nq = MatMul (t, x)\np = Softmax (q)\ny = MatMul (x, p)",
        lambda x: x @ (x.transpose(2, 3) @ x).softmax(-1),
    ),
}
