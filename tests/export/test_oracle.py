"""A second opinion that shares no code with ours: PyTorch's own backward pass, traced and exported to ONNX."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch._decomp import core_aten_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

from tests.export.classifiers import evaluate

if TYPE_CHECKING:
    from onnx import ModelProto

    from tests.export.classifiers import Exported

BATCH = 8


def convolution_backward(dy: Any, x: Any, w: Any, bias_sizes: Any, *rest: Any) -> tuple[Any, None, None]:
    """The gradient of a convolution by its input as a transposed convolution: what ONNX can express."""
    stride, padding, dilation, _, _, groups, _ = rest
    spans = [
        x.shape[2 + i] - ((dy.shape[2 + i] - 1) * stride[i] - 2 * padding[i] + dilation[i] * (w.shape[2 + i] - 1) + 1)
        for i in range(2)
    ]
    dx = torch.ops.aten.convolution.default(dy, w, None, stride, padding, dilation, True, spans, groups)
    return dx, None, None


def exported_backward(network: torch.nn.Module, images: Any, cotangent: Any) -> ModelProto:
    def gradient(x: Any, v: Any) -> Any:
        x = x.detach().requires_grad_(True)
        return torch.autograd.grad(network(x), x, v)[0]

    table = {**core_aten_decompositions(), torch.ops.aten.convolution_backward.default: convolution_backward}
    traced = make_fx(gradient, decomposition_table=table)(images, cotangent)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(traced, (images, cotangent), dynamo=True, verbose=False, opset_version=20)
    return program.model_proto


@pytest.mark.slow
@pytest.mark.check
def test_gradient_graph_agrees_with_the_exported_backward_pass_of_torch(exported: Exported) -> None:
    feeds = exported.feeds(BATCH)
    feeds["weights"][:] = 0
    images, cotangent = torch.from_numpy(feeds["input"]), torch.from_numpy(feeds["cotangent"])
    oracle = exported_backward(exported.network, images, cotangent)
    names = [info.name for info in oracle.graph.input]
    values = dict(zip(names, (feeds["input"], feeds["cotangent"]), strict=True))
    (expected,) = evaluate(oracle, values).values()
    found = evaluate(exported.gradient, feeds)["gradient"]
    errors = np.abs(found - expected).max((1, 2, 3)) / np.abs(expected).max((1, 2, 3))
    assert np.median(errors) < 1e-5
