"""No constant that edgeproof puts into a graph is infinite in its type: infinity times a mask's 0 is no number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import numpy_helper

from export.gradient import gradient_graph
from export.graph.graph import Emitter
from export.graph.passes import prepare
from export.precision.half import in_float16
from tests.export.classifiers import attack_feeds, classifier, evaluate

if TYPE_CHECKING:
    from onnx import ModelProto

    from tests.export.classifiers import Exported

POOLING = [
    "c = Conv <pads=[1,1,1,1]> (input, w)",
    "p = MaxPool <kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]> (c)",
    "f = Flatten (p)",
    "logits = Gemm (f, h)",
]


def infinite(model: ModelProto) -> list[str]:
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return [
        name
        for name, value in constants.items()
        if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all()
    ]


def pooling() -> ModelProto:
    random = np.random.default_rng(0)
    constants = {"w": random.standard_normal((4, 1, 3, 3)), "h": random.standard_normal((64, 3))}
    return classifier(POOLING, image=(1, 8, 8), classes=3, constants=constants, dtype=np.float32)


def test_constants_of_every_architecture_are_finite_in_float32_and_float16(exported: Exported) -> None:
    half = in_float16(exported.forward)
    for model in (exported.forward.model, exported.gradient, half.model, gradient_graph(half)):
        assert infinite(model) == []


def test_a_constant_beyond_float16_becomes_its_largest_number_without_a_warning() -> None:
    emit = Emitter(np.dtype(np.float16))
    emit.real([-1e30, 1e30, np.inf, 1.5])
    np.testing.assert_array_equal(numpy_helper.to_array(emit.initializers[0]), [-65504, 65504, 65504, 1.5])


def test_a_padded_maxpool_in_float16_has_the_gradient_of_float32_at_the_border_too() -> None:
    random = np.random.default_rng(1)
    feeds = attack_feeds(random.random((8, 1, 8, 8)).astype(np.float32), 3, cotangent=random.standard_normal((8, 3)))

    def gradient(model: ModelProto) -> Any:
        assert infinite(model) == []
        return evaluate(model, feeds)["gradient"]

    exact = gradient(gradient_graph(prepare(pooling())))
    half = gradient(gradient_graph(in_float16(prepare(pooling()))))
    error = np.abs(half - exact).max((1, 2, 3)) / np.abs(exact).max((1, 2, 3))
    assert np.median(error) < 5e-3
