from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from export.gradient import gradient_graph
from export.graph.passes import prepare
from tests.export.classifiers import attack_feeds, classifier, evaluate

CLASSES = (2, 3, 4, 10)
LEAST = float(np.finfo(np.float32).smallest_normal)
HEADS = {"cross-entropy": 0, "margin": 1, "DLR": 2, "targeted DLR": 3}


def identity(classes: int, dtype: Any = np.float64) -> Any:
    """The gradient graph of a classifier whose logits are its input: the gradient is the losses' own."""
    model = classifier(["logits = Flatten (input)"], image=(classes, 1, 1), classes=classes, dtype=dtype)
    return gradient_graph(prepare(model))


GRAPHS = {classes: identity(classes) for classes in CLASSES}
GRAPH_32 = identity(10, np.float32)


def run(graph: Any, z: Any, label: Any, **given: Any) -> tuple[Any, Any]:
    classes = z.shape[1]
    feeds = attack_feeds(z[:, :, None, None], classes, label=np.eye(classes)[label], **given)
    answer = evaluate(graph, feeds)
    return answer["value"], answer["gradient"][:, :, 0, 0]


def torch_losses(z: Any, label: Any, target: Any) -> list[Any]:
    """The four losses as the literature writes them: those that this many classes allow."""
    own = F.one_hot(label, z.shape[1]).bool()
    true = z[own]
    ordered = z.sort(dim=1, descending=True).values
    margin = z.masked_fill(own, -torch.inf).max(dim=1).values - true
    losses = [F.cross_entropy(z, label, reduction="none"), margin]
    if z.shape[1] >= 3:
        losses.append(margin / (ordered[:, 0] - ordered[:, 2] + 1e-12))
    if z.shape[1] >= 4:
        wanted = z.gather(1, target[:, None])[:, 0]
        losses.append((wanted - true) / (ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2 + 1e-12))
    return losses


DEFINED = [
    pytest.param(classes, head, id=f"{name} of {classes} classes")
    for name, head in HEADS.items()
    for classes in CLASSES
    if classes > head or head < 2
]


@pytest.mark.parametrize(("classes", "head"), DEFINED)
def test_each_loss_and_its_gradient_equal_torch_through_sort(classes: int, head: int) -> None:
    random = np.random.default_rng(classes)
    z = 3 * random.standard_normal((50, classes))
    label, target = random.integers(0, classes, 50), random.integers(0, classes, 50)
    images = torch.from_numpy(z).requires_grad_(True)
    losses = torch_losses(images, torch.from_numpy(label), torch.from_numpy(target))
    (expected,) = torch.autograd.grad(losses[head].sum(), images)
    value, gradient = run(
        GRAPHS[classes], z, label, target=np.eye(classes)[target], weights=np.eye(4)[np.full(50, head)]
    )
    np.testing.assert_allclose(value, losses[head].detach().numpy(), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(gradient, expected.numpy(), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("classes", CLASSES)
def test_weights_without_a_head_count_nothing(classes: int) -> None:
    z, label = np.random.default_rng(0).standard_normal((4, classes)), np.zeros(4, int)
    heads = {2: 2, 3: 3}.get(classes, 4)
    weights = np.tile(np.arange(4) >= heads, (4, 1))
    value, gradient = run(GRAPHS[classes], z, label, weights=weights)
    assert not value.any()
    assert not gradient.any()


@pytest.mark.parametrize(("classes", "named"), [(2, False), (3, False), (4, True)])
def test_target_is_an_input_from_four_classes_on(classes: int, named: bool) -> None:
    names = [info.name for info in GRAPHS[classes].graph.input]
    assert ("target" in names) == named
    assert {"input", "label", "weights", "cotangent"} <= set(names)


@settings(max_examples=50, deadline=None)
@given(
    z=arrays.arrays(np.float64, (3, 10), elements=st.floats(-8, 8), unique=True),
    weights=arrays.arrays(np.float64, (3, 4), elements=st.floats(-2, 2)),
    cotangent=arrays.arrays(np.float64, (3, 10), elements=st.floats(-2, 2)),
)
def test_losses_add_up_by_weight_and_cotangent(z: Any, weights: Any, cotangent: Any) -> None:
    label, target = np.asarray([0, 1, 2]), np.eye(10)[[9, 8, 7]]
    value, gradient = run(GRAPHS[10], z, label, target=target, weights=weights, cotangent=cotangent)
    expected_value, expected_gradient = (cotangent * z).sum(axis=1), cotangent
    for head in range(4):
        part, slope = run(GRAPHS[10], z, label, target=target, weights=np.eye(4)[np.full(3, head)])
        expected_value = expected_value + weights[:, head] * part
        expected_gradient = expected_gradient + weights[:, head, None] * slope
    scale = max(1, np.abs(expected_gradient).max())
    np.testing.assert_allclose(value, expected_value, rtol=1e-9, atol=1e-9 * scale)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-9, atol=1e-9 * scale)


def confident(gap: float) -> tuple[Any, Any]:
    z = np.random.default_rng(0).standard_normal((200, 10))
    z[:, 3] = z.max(axis=1) + gap
    return z.astype(np.float32), np.full(200, 3)


@pytest.mark.parametrize("gap", [1.0, 20.0, 60.0])
def test_cross_entropy_in_float32_agrees_with_float64_on_confident_images(gap: float) -> None:
    z, label = confident(gap)
    weights = np.tile([1.0, 0, 0, 0], (200, 1))
    value, gradient = run(GRAPH_32, z, label, weights=weights)
    exact_value, exact_gradient = run(GRAPHS[10], z.astype(np.float64), label, weights=weights)
    np.testing.assert_allclose(value, exact_value, rtol=1e-4)
    np.testing.assert_allclose(gradient, exact_gradient, rtol=1e-4)
    assert (np.sign(gradient) == np.sign(exact_gradient)).all()


def sure(margin: float, n: int = 200) -> tuple[Any, Any]:
    """Return logits float32 whose label is `margin` above the logsumexp of the others, and the label."""
    z = np.random.default_rng(1).standard_normal((n, 10))
    z[:, 3] = -np.inf
    z[:, 3] = np.log(np.exp(z).sum(axis=1)) + margin
    return z.astype(np.float32), np.full(n, 3)


def sure_losses(margin: float) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Return value and gradient of the loss of such logits, in float32 and in float64."""
    z, label = sure(margin)
    weights = np.tile([1.0, 0, 0, 0], (200, 1))
    found = run(GRAPH_32, z, label, weights=weights)
    return found, run(GRAPHS[10], z.astype(np.float64), label, weights=weights)


def rounding(margin: float) -> float:
    """Return the rounding of the logits' differences, on which the loss depends."""
    return float(np.finfo(np.float32).eps) * max(8, margin)


@pytest.mark.parametrize("margin", [0, 1e-3, 0.5, 2, 10, 15, 16, 17, 18, 20, 40, 80])
def test_cross_entropy_keeps_six_digits_from_the_boundary_to_where_float32_ends(margin: float) -> None:
    """In float32 1 + e is 1 from a margin of 17 on."""
    for found, exact in zip(*sure_losses(margin), strict=True):
        np.testing.assert_allclose(found, exact, rtol=rounding(margin), atol=1e-3 * LEAST)


@pytest.mark.parametrize("margin", [87, 95, 100])
def test_a_loss_under_the_least_normal_number_is_right_or_nearer_to_zero(margin: float) -> None:
    """ONNX Runtime's kernels for AVX2 take exp(z) as 0 there, which leaves out terms of a sum; AVX-512's do not."""
    for found, exact in zip(*sure_losses(margin), strict=True):
        flushed = (np.abs(exact) < 2 * LEAST) & (found * np.sign(exact) >= 0) & (np.abs(found) < np.abs(exact))
        np.testing.assert_allclose(found[~flushed], exact[~flushed], rtol=rounding(margin), atol=1e-3 * LEAST)


def test_value_of_a_row_has_the_same_bits_at_every_place_of_every_batch() -> None:
    random = np.random.default_rng(2)
    z = (4 * random.standard_normal((67, 10))).astype(np.float32)
    label, weights = random.integers(0, 10, 67), np.tile([1.0, 0, 0, 0], (67, 1))
    whole, _ = run(GRAPH_32, z, label, weights=weights)
    for size in (1, 2, 3, 5, 7, 16, 19):
        parts = [slice(start, start + size) for start in range(0, 67, size)]
        cut = [run(GRAPH_32, z[rows], label[rows], weights=weights[rows])[0] for rows in parts]
        np.testing.assert_array_equal(np.concatenate(cut), whole, err_msg=f"in batches of {size}")


def test_naive_cross_entropy_in_float32_is_dead_where_ours_is_alive() -> None:
    z, label = confident(20.0)
    images = torch.from_numpy(z).requires_grad_(True)
    loss = F.cross_entropy(images, torch.from_numpy(label), reduction="sum")
    (naive,) = torch.autograd.grad(loss, images)
    value, gradient = run(GRAPH_32, z, label, weights=np.tile([1.0, 0, 0, 0], (200, 1)))
    assert (naive[:, 3] == 0).all()
    assert (gradient[:, 3] < 0).all()
    assert (value > 0).all()


def test_ties_go_to_the_first_class() -> None:
    z = np.asarray([[1.0, 5.0, 5.0, 5.0, 0.0]])
    model = classifier(["logits = Flatten (input)"], image=(5, 1, 1), classes=5, dtype=np.float32)
    graph = gradient_graph(prepare(model))
    _, margin = run(graph, z.astype(np.float32), [0], weights=np.asarray([[0, 1, 0, 0]]))
    np.testing.assert_array_equal(margin, [[-1, 1, 0, 0, 0]])
    value, at_tie = run(graph, z.astype(np.float32), [2], weights=np.asarray([[0, 1, 0, 0]]))
    assert value == 0
    np.testing.assert_array_equal(at_tie, [[0, 1, -1, 0, 0]])


def test_equal_logits_give_finite_losses_and_gradients() -> None:
    z = np.zeros((1, 10), np.float32)
    for head in range(4):
        value, gradient = run(GRAPH_32, z, [0], target=np.eye(10)[[1]], weights=np.eye(4)[[head]])
        assert np.isfinite(value).all()
        assert np.isfinite(gradient).all()
