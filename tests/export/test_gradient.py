from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper

from export.gradient import gradient_graph
from export.graph.passes import prepare, to_bytes
from runtime.errors import BadModel
from runtime.graph.facts import differentiates_itself
from tests.export.classifiers import SIDE, attack_feeds, classifier, evaluate, torch_gradient

if TYPE_CHECKING:
    from tests.export.classifiers import Exported


def per_image_error(found: Any, expected: Any) -> Any:
    axes = tuple(range(1, expected.ndim))
    return np.abs(found - expected).max(axes) / np.abs(expected).max(axes)


def test_gradient_of_both_networks_equals_torch_image_by_image(exported: Exported) -> None:
    feeds = exported.feeds(64)
    feeds["weights"][:] = 0
    answer = evaluate(exported.gradient, feeds)
    expected = torch_gradient(exported.network, feeds["input"], feeds["cotangent"])
    errors = per_image_error(answer["gradient"], expected)
    assert np.median(errors) < 1e-5
    assert np.quantile(errors, 0.9) < 1e-3


def test_gradient_of_all_losses_at_once_equals_torch_image_by_image(exported: Exported) -> None:
    feeds = exported.feeds(64)
    answer = evaluate(exported.gradient, feeds)
    exact = {name: torch.from_numpy(value).double() for name, value in feeds.items()}
    network = exported.network
    with torch.no_grad():
        z = network(torch.from_numpy(feeds["input"])).double()
    z.requires_grad_(True)
    own, target = exact["label"].bool(), exact["target"].bool()
    ordered = z.sort(dim=1, descending=True).values
    margin = z.masked_fill(own, -torch.inf).max(dim=1).values - z[own]
    losses = [
        torch.logsumexp(z, dim=1) - z[own],
        margin,
        margin / (ordered[:, 0] - ordered[:, 2] + 1e-12),
        (z[target] - z[own]) / (ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2 + 1e-12),
    ]
    value = (torch.stack(losses, 1) * exact["weights"]).sum(1) + (exact["cotangent"] * z).sum(1)
    (seed,) = torch.autograd.grad(value.sum(), z)
    expected = torch_gradient(network, feeds["input"], seed.float().numpy())
    # Logits close together in a random network make DLR's denominator small, hence the room.
    np.testing.assert_allclose(answer["value"], value.detach().numpy(), rtol=1e-3, atol=1e-3)
    assert np.median(per_image_error(answer["gradient"], expected)) < 1e-4


def test_logits_of_the_gradient_graph_are_the_classifiers(exported: Exported) -> None:
    feeds = exported.feeds(8)
    logits = evaluate(exported.forward.model, {"input": feeds["input"]})["logits"]
    np.testing.assert_allclose(evaluate(exported.gradient, feeds)["logits"], logits, rtol=0, atol=1e-5)


def test_row_has_the_same_bits_wherever_it_is_in_the_batch(exported: Exported) -> None:
    feeds = exported.feeds(64)
    order = np.random.default_rng(1).permutation(64)
    straight = evaluate(exported.gradient, feeds)
    permuted = evaluate(exported.gradient, {name: value[order] for name, value in feeds.items()})
    for name, rows in straight.items():
        np.testing.assert_array_equal(permuted[name], rows[order], err_msg=name)


@pytest.mark.parametrize("batch", [1, 7])
def test_row_has_the_same_bits_in_a_batch_of_any_size(exported: Exported, batch: int) -> None:
    feeds = exported.feeds(64)
    whole = evaluate(exported.gradient, feeds)
    part = evaluate(exported.gradient, {name: value[:batch] for name, value in feeds.items()})
    for name, rows in part.items():
        np.testing.assert_array_equal(rows, whole[name][:batch], err_msg=name)


def test_the_gradient_graph_of_a_network_of_ours_differentiates_the_graph_itself(exported: Exported) -> None:
    assert differentiates_itself(to_bytes(exported.gradient), to_bytes(exported.forward.model))


def test_gradient_graph_declares_the_fixed_interface(exported: Exported) -> None:
    def declared(values: Any) -> dict[str, list[Any]]:
        return {
            info.name: [dim.dim_value or dim.dim_param for dim in info.type.tensor_type.shape.dim] for info in values
        }

    batch = exported.forward.model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    rows = [batch, 10]
    assert declared(exported.gradient.graph.input) == {
        "input": [batch, 1, SIDE, SIDE],
        "label": rows,
        "target": rows,
        "weights": [batch, 4],
        "cotangent": rows,
    }
    assert declared(exported.gradient.graph.output) == {
        "logits": rows,
        "value": [batch],
        "gradient": [batch, 1, SIDE, SIDE],
    }


def test_gradient_graph_is_the_same_bytes_every_time(exported: Exported) -> None:
    assert to_bytes(gradient_graph(exported.forward)) == to_bytes(exported.gradient)


def test_model_may_use_the_names_of_the_gradient_graph_inside() -> None:
    model = classifier(
        ["value = Flatten (input)", "gradient = MatMul (value, weights)", "logits = Tanh (gradient)"],
        image=(1, 2, 2),
        classes=3,
        constants={"weights": np.ones((4, 3))},
    )
    answer = evaluate(gradient_graph(prepare(model)), attack_feeds(np.ones((2, 1, 2, 2)), 3, cotangent=np.ones((2, 3))))
    assert answer["gradient"].shape == (2, 1, 2, 2)
    assert answer["value"].shape == (2,)


def test_nodes_beside_the_way_to_the_logits_need_no_rule() -> None:
    model = classifier(
        ["unused = Erf (input)", "flat = Flatten (input)", "logits = Tanh (flat)"], image=(1, 1, 2), classes=2
    )
    answer = evaluate(
        gradient_graph(prepare(model)), attack_feeds(np.zeros((1, 1, 1, 2)), 2, cotangent=np.ones((1, 2)))
    )
    np.testing.assert_array_equal(answer["gradient"], np.ones((1, 1, 1, 2)))


def test_operation_of_another_domain_is_named_with_a_hint() -> None:
    model = classifier(
        ["flat = Flatten (input)", 'g = com.microsoft.CDist <metric="euclidean"> (flat, c)', "logits = Tanh (g)"],
        image=(1, 1, 2),
        classes=2,
        constants={"c": np.eye(2)},
        dtype=np.float32,
    )
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(BadModel, match=r"'g'.*CDist.*no derivative.* of the domain com.microsoft") as caught:
        gradient_graph(prepare(model))
    assert caught.value.hint


def test_model_that_ignores_its_input_is_refused() -> None:
    model = classifier(
        ["flat = Flatten (input)", "none = Mul (flat, zero)", "w = Shape (none)", "logits = Expand (c, w)"],
        image=(1, 1, 2),
        classes=2,
        constants={"zero": 0.0, "c": np.ones(2)},
    )
    with pytest.raises(BadModel, match="do not depend"):
        gradient_graph(prepare(model))


def test_finite_differences_agree_with_the_gradient_of_a_small_network() -> None:
    random = np.random.default_rng(0)
    weight = numpy_helper.to_array(numpy_helper.from_array(random.standard_normal((3, 2, 3, 3))))
    model = classifier(
        [
            "c = Conv <pads=[1,1,1,1], strides=[2,2]> (input, w)",
            "s = Sigmoid (c)",
            "p = GlobalAveragePool (s)",
            "flat = Flatten (p)",
            "logits = Gemm (flat, h)",
        ],
        image=(2, 5, 5),
        classes=4,
        constants={"w": weight, "h": 5 * random.standard_normal((3, 4))},
    )
    graph = gradient_graph(prepare(model))
    x, step = random.random((1, 2, 5, 5)), 1e-6 * random.standard_normal((1, 2, 5, 5))
    feeds = {"label": np.eye(4)[[1]], "target": np.eye(4)[[2]], "weights": np.ones((1, 4))}
    middle = evaluate(graph, attack_feeds(x, 4, **feeds))
    ends = [evaluate(graph, attack_feeds(x + sign * step, 4, **feeds))["value"] for sign in (1, -1)]
    np.testing.assert_allclose((middle["gradient"] * step).sum(), (ends[0] - ends[1]) / 2, rtol=1e-5)
