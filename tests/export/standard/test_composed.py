"""Operations that ONNX defines by others, and those of newer operator sets, written out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnx import checker, version_converter
from onnx.reference import ReferenceEvaluator

from export.adapt.batch import free_batch
from export.gradient import gradient_graph
from export.graph.passes import prepare
from export.standard import in_older_operations
from runtime.graph.facts import staircases
from tests.export.classifiers import attack_feeds, classifier, evaluate, torch_gradient

if TYPE_CHECKING:
    from collections.abc import Callable

RANDOM = np.random.default_rng(0)
IMAGE = (4, 6, 8)


def normal(*shape: int) -> Any:
    return RANDOM.standard_normal(shape)


def heads(x: Any, count: int) -> Any:
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


def attention(x: Any, mask: Any = None) -> Any:
    return F.scaled_dot_product_attention(x, x.tanh(), x, mask)


CASES: dict[str, tuple[int, list[str], dict[str, Any], Callable[..., Any]]] = {
    "GroupNormalization 21": (
        21,
        ["y = GroupNormalization <num_groups=2> (input, s, b)"],
        {"s": normal(4), "b": normal(4)},
        lambda x, s, b: F.group_norm(x, 2, s, b),
    ),
    "RMSNormalization": (
        23,
        ["y = RMSNormalization <axis=-1, epsilon=0.0009765625> (input, s)"],
        {"s": normal(8)},
        lambda x, s: F.rms_norm(x, (8,), s, 2**-10),
    ),
    "RMSNormalization over pixels": (
        24,
        ["y = RMSNormalization <axis=2, epsilon=0.0009765625> (input, s)"],
        {"s": normal(6, 8)},
        lambda x, s: F.rms_norm(x, (6, 8), s, 2**-10),
    ),
    "Attention": (23, ["t = Tanh (input)", "y = Attention (input, t, input)"], {}, attention),
    "Attention with a scale and a bias": (
        24,
        ["t = Tanh (input)", "y = Attention <scale=0.5> (input, t, input, m)"],
        {"m": normal(6, 6)},
        lambda x, m: F.scaled_dot_product_attention(x, x.tanh(), x, m, scale=0.5),
    ),
    "Attention of heads side by side": (
        23,
        ["r = Reshape (input, rows)", "t = Tanh (r)", "y = Attention <q_num_heads=2, kv_num_heads=2> (r, t, r)"],
        {"rows": np.asarray([0, 24, 8])},
        lambda x, rows: attention(heads(x.flatten(1, 2), 2)).transpose(1, 2).flatten(2),
    ),
    "Attention that looks back": (
        23,
        ["t = Tanh (input)", "y = Attention <is_causal=1> (input, t, input)"],
        {},
        lambda x: F.scaled_dot_product_attention(x, x.tanh(), x, is_causal=True),
    ),
    "Swish": (24, ["y = Swish (input)"], {}, F.silu),
    "ReduceProd": (
        20,
        ["y = ReduceProd <keepdims=0> (input, a)"],
        {"a": np.asarray([1, 3])},
        lambda x, a: x.prod(3).prod(1),
    ),
    "LpPool": (
        20,
        ["y = LpPool <kernel_shape=[3,2], strides=[2,1], pads=[1,0,1,1], p=2> (input)"],
        {},
        lambda x: 6**0.5 * F.avg_pool2d(F.pad(x.square(), (0, 1, 1, 1)), (3, 2), (2, 1)).sqrt(),
    ),
    "LpPool of the third power": (
        20,
        ["y = LpPool <kernel_shape=[2,2], p=3> (input)"],
        {},
        lambda x: F.lp_pool2d(x.abs(), 3, 2, stride=1),
    ),
    "GlobalLpPool": (20, ["y = GlobalLpPool <p=1> (input)"], {}, lambda x: x.abs().sum((2, 3), keepdim=True)),
    "MeanVarianceNormalization": (
        20,
        ["y = MeanVarianceNormalization <axes=[2,3]> (input)"],
        {},
        lambda x: (x - x.mean((2, 3), keepdim=True)) / (x.std((2, 3), correction=0, keepdim=True) + 1e-9),
    ),
    "ReduceSumSquare": (
        20,
        ["y = ReduceSumSquare (input, a)"],
        {"a": np.asarray([1])},
        lambda x, a: x.square().sum(1, keepdim=True),
    ),
    "ReduceLogSum": (
        20,
        ["e = Exp (input)", "y = ReduceLogSum (e, a)"],
        {"a": np.asarray([1])},
        lambda x, a: x.logsumexp(1, keepdim=True),
    ),
}


def model_of(name: str, dtype: Any) -> Any:
    opset, nodes, constants, _ = CASES[name]
    head = RANDOM_HEAD[: features(name)]
    return classifier(
        [*nodes, "flat = Flatten (y)", "logits = MatMul (flat, head)"],
        image=IMAGE,
        classes=5,
        constants={**constants, "head": head},
        dtype=dtype,
        opset=opset,
    )


RANDOM_HEAD = normal(4 * 6 * 8, 5)


def features(name: str) -> int:
    return int(function_of(name)(torch.zeros(1, *IMAGE).double()).numel())


def function_of(name: str) -> Callable[[Any], Any]:
    *_, constants, function = CASES[name]
    operands = [torch.from_numpy(np.asarray(value)) for value in constants.values()]
    return lambda x: function(x, *(o.to(x.dtype) if o.is_floating_point() else o for o in operands))


def brought_back(model: Any) -> Any:
    """Bring a model to opset 20, as `pack` does."""
    if model.opset_import[0].version <= 20:
        return model
    written = version_converter.convert_version(in_older_operations(model, 20), 20)
    checker.check_model(written)
    return written


@pytest.mark.parametrize("name", CASES)
def test_gradient_of_what_is_written_out_equals_torch(name: str) -> None:
    model = prepared_without_shapes(brought_back(model_of(name, np.float32)))
    x, cotangent = normal(3, *IMAGE).astype(np.float32), normal(3, 5)
    ours = evaluate(gradient_graph(model), attack_feeds(x, 5, cotangent=cotangent))["gradient"]
    head = torch.from_numpy(RANDOM_HEAD[: features(name)])
    expected = torch_gradient(lambda z: function_of(name)(z).flatten(1) @ head, x.astype(np.float64), cotangent)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-5 * max(1, np.abs(expected).max()))


def prepared_without_shapes(model: Any) -> Any:
    """Prepare a model as `pack` does, which computes from the sizes of its images what depends on them."""
    free_batch(model, {"input": (1, *IMAGE)})
    return prepare(model)


@pytest.mark.parametrize("name", [name for name, (opset, *_) in CASES.items() if opset > 20])
def test_what_is_written_out_answers_as_its_operation(name: str) -> None:
    model = model_of(name, np.float32)
    x = normal(3, *IMAGE).astype(np.float32)
    expected, found = (
        ReferenceEvaluator(each).run(None, {"input": x})[0]
        for each in (model, brought_back(model_of(name, np.float32)))
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_a_plain_attention_is_no_staircase() -> None:
    model = prepared_without_shapes(brought_back(model_of("Attention", np.float32)))
    assert staircases(model.model.SerializeToString()) == ()


def product_of_others(x: Any) -> Any:
    """Return the slope of a product by each factor."""
    return np.stack([np.prod(np.delete(x, place, -1), -1) for place in range(x.shape[-1])], -1)


@pytest.mark.parametrize("zeros", [0, 1, 2])
def test_a_product_with_zeros_has_the_slope_of_the_others(zeros: int) -> None:
    nodes = ["y = ReduceProd <keepdims=1> (input, a)", "logits = Flatten (y)"]
    model = classifier(nodes, image=(1, 2, 7), classes=2, constants={"a": np.asarray([3])}, dtype=np.float32)
    x = normal(3, 1, 2, 7).astype(np.float32)
    x[..., :zeros] = 0
    found = evaluate(gradient_graph(prepare(model)), attack_feeds(x, 2, cotangent=np.ones((3, 2))))["gradient"]
    np.testing.assert_allclose(found, product_of_others(x), rtol=0, atol=1e-5)
    assert bool(found.any()) == (zeros < 2)
