"""One use of an operation, in ONNX and in torch, and the gradients of both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from export.gradient import gradient_graph
from export.graph.passes import prepare
from tests.export.classifiers import attack_feeds, classifier, evaluate, torch_gradient

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE = (4, 7, 6)


@dataclass(frozen=True)
class Case:
    """One use of an operation, `x` to `y`, in ONNX text and in torch; constants go to both."""

    nodes: str
    function: Callable[..., Any]
    constants: dict[str, Any] = field(default_factory=dict)
    image: tuple[int, ...] = IMAGE


def model_of(case: Case, dtype: Any) -> Any:
    """Build and prepare a classifier of five classes: the operation, flattened and multiplied by a random head."""
    model = classifier(
        ["x = Identity (input)", *case.nodes.split("\n"), "flat = Flatten (y)", "logits = MatMul (flat, head)"],
        image=case.image,
        classes=5,
        constants={**case.constants, "head": head_of(case)},
        dtype=dtype,
    )
    return prepare(model)


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


def check_same_bits_everywhere(case: Case) -> None:
    """Assert that a row's gradient has the same bits in a batch of another size or order."""
    graph = gradient_graph(model_of(case, np.float32))
    random = np.random.default_rng(3)
    x = random.standard_normal((9, *case.image)).astype(np.float32)
    feeds = attack_feeds(x, 5, cotangent=random.standard_normal((9, 5)))
    order = random.permutation(9)
    whole, permuted, two = (
        evaluate(graph, {key: value[rows] for key, value in feeds.items()})["gradient"]
        for rows in (slice(None), order, slice(0, 2))
    )
    np.testing.assert_array_equal(permuted, whole[order])
    np.testing.assert_array_equal(two, whole[:2])
