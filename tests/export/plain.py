"""One plain classifier, as ONNX text and in torch, with images that it answers rightly."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from tests.export.classifiers import torch_gradient
from tests.export.strangers import gradient_of, stranger

RANDOM = np.random.default_rng(0)
W1 = RANDOM.standard_normal((6, 3, 3, 3)).astype(np.float32) / 3
W2 = RANDOM.standard_normal((6 * 4 * 4, 4)).astype(np.float32) / 5
B2 = RANDOM.standard_normal(4).astype(np.float32)
X = RANDOM.random((12, 3, 8, 8), dtype=np.float32)
WEIGHTS = {"w1": W1, "w2": W2, "b2": B2, "flat": np.asarray([1, 96])}
BODY = [
    "c = Conv <strides=[2,2], pads=[1,1,1,1]> (image, w1)",
    "r = Relu (c)",
    "f = Reshape (r, flat)",
    "m = MatMul (f, w2)",
]
PLAIN = [*BODY, "scores = Add (m, b2)"]


def network(x: Any) -> Any:
    """Return what PLAIN computes, in torch."""
    w1, w2, b2 = (torch.from_numpy(array).to(x.dtype) for array in (W1, W2, B2))
    return F.conv2d(x, w1, stride=2, padding=1).relu().flatten(1) @ w2 + b2


LABELS = network(torch.from_numpy(X)).argmax(dim=1).numpy()


def plain(nodes: list[str] | None = None, **changes: Any) -> Any:
    given = {"dims": [1, 3, 8, 8], "out": [1, 4], "constants": WEIGHTS, **changes}
    return stranger(nodes or PLAIN, **given)


def no_rule() -> Any:
    return plain([*BODY, "z = Add (m, b2)", "scores = Sinh (z)"])


def tensorflow_shaped(opset: int) -> Any:
    """Build what tf2onnx makes of a Keras model: channels last, Transposes around convolutions, its names."""
    names = {"image": "input_1:0", "scores": "Identity:0"}
    model = stranger(
        [
            "t = Transpose <perm=[0,3,1,2]> (image)",
            "c = Conv <strides=[2,2], pads=[1,1,1,1]> (t, w1)",
            "a = Identity (c)",
            "r = Relu (a)",
            "b = Transpose <perm=[0,2,3,1]> (r)",
            "f = Reshape (b, flat)",
            "m = MatMul (f, w2)",
            "z = Add (m, b2)",
            "scores = Softmax <axis=1> (z)",
        ],
        dims=[1, 8, 8, 3],
        out=[1, 4],
        constants={**WEIGHTS, "w2": W2.reshape(6, 4, 4, 4).transpose(1, 2, 0, 3).reshape(96, 4)},
        opset=opset,
        names=(names["image"], names["scores"]),
    )
    for node in model.graph.node:  # which ONNX's text does not take
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    return model


def check_as_torch(session: Any, x: Any = X, function: Any = network) -> None:
    """Compare logits in several batches, and a gradient, with what torch makes of the same function."""
    expected = function(torch.from_numpy(x)).numpy()
    for batch in (1, 5, len(x)):
        np.testing.assert_allclose(session.logits(x[:batch]), expected[:batch], rtol=0, atol=1e-5)
    cotangent = np.random.default_rng(1).standard_normal(expected.shape).astype(np.float32)
    gradient = torch_gradient(function, x, cotangent)
    np.testing.assert_allclose(gradient_of(session, x, cotangent), gradient, rtol=0, atol=1e-5)
