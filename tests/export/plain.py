"""One plain classifier, as ONNX text and in torch, with images that it answers rightly."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from tests.export.foreign.strangers import stranger

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
    nodes = [*BODY, "z = Add (m, b2)", "scores = CumSum (z, one)"]
    return plain(nodes, constants={**WEIGHTS, "one": np.asarray(1)})
