from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from export.gradient import gradient_graph
from export.rules import RULES
from runtime.errors import BadModel
from tests.export.classifiers import attack_feeds, classifier, evaluate, torch_gradient

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE = (4, 7, 6)
CROPPING = "Pad that also crops, on some axes"
"""onnx's own evaluator cannot crop, so that this one is tested on ONNX Runtime alone."""
RANDOM = np.random.default_rng(0)


@dataclass(frozen=True)
class Case:
    """One use of an operation, `x` to `y`, in ONNX text and in torch; constants go to both."""

    nodes: str
    function: Callable[..., Any]
    constants: dict[str, Any] = field(default_factory=dict)
    image: tuple[int, ...] = IMAGE


def normal(*shape: int) -> Any:
    return RANDOM.standard_normal(shape)


def positive(*shape: int) -> Any:
    return RANDOM.random(shape) + 0.5


def batch_norm(x: Any, scale: Any, bias: Any, mean: Any, var: Any) -> Any:
    return F.batch_norm(x, mean, var, scale, bias, False, 0.0, 1e-5)


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
}


def model_of(case: Case, dtype: Any) -> Any:
    """Build a classifier of five classes: the operation, flattened and multiplied by a random head."""
    return classifier(
        ["x = Identity (input)", *case.nodes.split("\n"), "flat = Flatten (y)", "logits = MatMul (flat, head)"],
        image=case.image,
        classes=5,
        constants={**case.constants, "head": head_of(case)},
        dtype=dtype,
    )


def head_of(case: Case) -> Any:
    features = case.function(torch.zeros(1, *case.image).double(), *operands(case)).numel()
    return np.random.default_rng(2).standard_normal((features, 5))


def operands(case: Case) -> list[Any]:
    return [torch.from_numpy(np.asarray(value)) for value in case.constants.values()]


def gradient_of(case: Case, dtype: Any) -> tuple[Any, Any]:
    """Return the gradients, ours and torch's in float64, of a random linear functional of the operation."""
    random = np.random.default_rng(1)
    x, cotangent = random.standard_normal((3, *case.image)), random.standard_normal((3, 5))
    feeds = attack_feeds(x.astype(dtype), 5, cotangent=cotangent)
    ours = evaluate(gradient_graph(model_of(case, dtype)), feeds)["gradient"]
    head = torch.from_numpy(head_of(case))
    expected = torch_gradient(lambda z: case.function(z, *operands(case)).flatten(1) @ head, x, cotangent)
    return ours, expected


@pytest.mark.parametrize("name", sorted(set(CASES) - {CROPPING}))
def test_gradient_of_every_operation_equals_torch_in_float64(name: str) -> None:
    ours, expected = gradient_of(CASES[name], np.float64)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-11 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("name", CASES)
def test_gradient_of_every_operation_on_onnx_runtime_equals_torch(name: str) -> None:
    ours, expected = gradient_of(CASES[name], np.float32)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))


def test_every_rule_has_a_case() -> None:
    used = {line.split("=")[1].split()[0] for case in CASES.values() for line in case.nodes.split("\n")}
    assert set(RULES) == used


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.integers(1, 4),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 3),
    padding=st.integers(0, 3),
    side=st.integers(3, 9),
    group=st.sampled_from([1, 2, 4]),
)
def test_convolution_of_any_geometry_is_differentiated(
    kernel: int, stride: int, dilation: int, padding: int, side: int, group: int
) -> None:
    assume(side + 2 * padding >= dilation * (kernel - 1) + 1)
    weight = np.random.default_rng(0).standard_normal((4, 4 // group, kernel, kernel))
    text = (
        f"y = Conv <strides=[{stride},{stride}], dilations=[{dilation},{dilation}], group={group}, "
        f"pads=[{padding},{padding},{padding},{padding}]> (x, w)"
    )

    def function(x: Any, w: Any) -> Any:
        return F.conv2d(x, w, stride=stride, padding=padding, dilation=dilation, groups=group)

    ours, expected = gradient_of(Case(text, function, {"w": weight}, (4, side, side)), np.float64)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ("y = Erf (input)", ("Erf", "no derivative")),
        ('y = Pad <mode="reflect"> (input, pads)', ("Pad", "constant padding")),
        ("y = MatMul (input, v)", ("MatMul", "one dimension")),
        ("y = Softmax <axis=0> (input)", ("Softmax", "batch")),
        ("y = ReduceMean (input)", ("ReduceMean", "batch")),
        (
            "g = ReduceMean <keepdims=0> (input, rest)\ny = BatchNormalization (input, g, b, b, b)",
            ("BatchNormalization", "computed at run time"),
        ),
    ],
)
def test_operation_that_cannot_be_differentiated_is_named(nodes: str, words: tuple[str, ...]) -> None:
    model = classifier(
        [*nodes.split("\n"), "f = Reshape (y, shape)", "logits = MatMul (f, head)"],
        image=(1, 3, 3),
        classes=2,
        constants={
            "pads": np.asarray([0, 0, 0, 0, 0, 0, 0, 0]),
            "shape": np.asarray([-1, 1]),
            "head": np.ones((1, 2)),
            "b": np.ones(1),
            "v": np.ones(3),
            "rest": np.asarray([0, 2, 3]),
        },
        dtype=np.float32,
    )
    with pytest.raises(BadModel) as caught:
        gradient_graph(model)
    assert all(word in caught.value.message for word in words), caught.value.message
    assert caught.value.hint
