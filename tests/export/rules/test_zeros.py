"""A norm or a root has a kink, or a pole, at zero: its gradient there is 0, as a norm's is in torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from export.gradient import gradient_graph
from tests.export.classifiers import attack_feeds, evaluate, torch_gradient
from tests.export.rules.cases import Case, head_of, model_of, operands

SPATIAL = {"axes": np.asarray([2, 3])}


def norm(x: Any, axes: Any) -> Any:
    return torch.linalg.vector_norm(x, dim=tuple(axes.tolist()), keepdim=True)


def deviation(x: Any, axes: Any, *_: Any) -> Any:
    return x.std((2, 3), correction=0, keepdim=True)


def window_norm(x: Any, *_: Any) -> Any:
    """F.lp_pool2d, by a norm: its own roots are not differentiable at zero."""
    windows = x.unfold(2, 2, 2).unfold(3, 2, 2)
    return torch.linalg.vector_norm(windows, dim=(-1, -2))


def response(x: Any, axes: Any, small: Any) -> Any:
    size = norm(x, axes)
    return x * size / (size.mean(1, keepdim=True) + small)


CASES = {
    "ReduceL2": Case("y = ReduceL2 (x, axes)", norm, SPATIAL),
    "Sqrt of a sum of squares": Case("s = Mul (x, x)\nr = ReduceSum (s, axes)\ny = Sqrt (r)", norm, SPATIAL),
    "a sum of squares to the power of a half": Case(
        "s = Mul (x, x)\nr = ReduceSum (s, axes)\ny = Pow (r, half)",
        lambda x, axes, half: norm(x, axes),
        {**SPATIAL, "half": 0.5},
    ),
    "pooling by the standard deviation": Case(
        "m = ReduceMean (x, axes)\nc = Sub (x, m)\ns = Mul (c, c)\nv = ReduceMean (s, axes)\ny = Sqrt (v)",
        deviation,
        SPATIAL,
    ),
    "pooling by a norm": Case(
        "s = Pow (x, two)\na = AveragePool <kernel_shape=[2,2], strides=[2,2]> (s)\nt = Mul (a, count)\n"
        "y = Pow (t, half)",
        window_norm,
        {"two": 2.0, "count": 4.0, "half": 0.5},
        (4, 6, 6),
    ),
    "global response normalisation": Case(
        "g = ReduceL2 (x, axes)\nm = ReduceMean (g, channels)\nn = Add (m, small)\nd = Div (g, n)\ny = Mul (x, d)",
        lambda x, axes, small, channels: response(x, axes, small),
        {**SPATIAL, "small": 1e-6, "channels": np.asarray([1])},
    ),
}


def partly_zero(image: tuple[int, ...]) -> Any:
    """Images of which one channel, a quarter of another, and in the last image all is zero."""
    x = np.random.default_rng(4).standard_normal((3, *image))
    x[:, 1] = 0
    x[:, 2, :4, :4] = 0
    x[2] = 0
    return x


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_gradient_at_zero_is_zero_as_in_torch(name: str, dtype: Any) -> None:
    case = CASES[name]
    x, cotangent = partly_zero(case.image), np.random.default_rng(1).standard_normal((3, 5))
    feeds = attack_feeds(x.astype(dtype), 5, cotangent=cotangent)
    ours = evaluate(gradient_graph(model_of(case, dtype)), feeds)["gradient"]
    head = torch.from_numpy(head_of(case))
    expected = torch_gradient(lambda z: case.function(z, *operands(case)).flatten(1) @ head, x, cotangent)
    assert np.isfinite(expected).all()
    assert not ours[2].any()
    atol = (1e-11 if dtype == np.float64 else 1e-5) * max(1, np.abs(expected).max())
    np.testing.assert_allclose(ours, expected, rtol=0, atol=atol)


def test_a_root_alone_has_gradient_zero_at_zero() -> None:
    case = Case("r = Relu (x)\ny = Sqrt (r)", lambda x: x.relu().sqrt())
    x = np.random.default_rng(5).standard_normal((2, *case.image)).astype(np.float32)
    feeds = attack_feeds(x, 5, cotangent=np.ones((2, 5)))
    found = evaluate(gradient_graph(model_of(case, np.float32)), feeds)["gradient"]
    assert np.isfinite(found).all()
    assert not found[x <= 0].any()
    assert found[x > 0].all()
