"""DeepMind's WideResNet as a student: SiLU and one-sided padding are exported, and so is their gradient."""

from __future__ import annotations

import numpy as np
import torch

from export.gradient import gradient_graph
from export.network.to_onnx import to_onnx
from pipeline.models import build_network
from runtime.bundle.manifest import InputShape
from tests.export.classifiers import SIDE, attack_feeds, evaluate, torch_gradient


def test_its_graph_answers_as_the_network_and_differentiates_as_torch() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network("dm_wideresnet", channels=1, classes=10, width=0.25, depth=10, mean=[0.3], std=[0.35])
        with torch.no_grad():
            for _ in range(5):
                network(torch.rand(32, 1, SIDE, SIDE))
    network.eval().requires_grad_(False)
    random = np.random.default_rng(0)
    x = random.random((16, 1, SIDE, SIDE), dtype=np.float32)
    cotangent = random.standard_normal((16, 10)).astype(np.float32)
    forward = to_onnx(network, InputShape(channels=1, height=SIDE, width=SIDE))
    logits = evaluate(forward.model, {"input": x})["logits"]
    np.testing.assert_allclose(logits, network(torch.from_numpy(x)).numpy(), rtol=0, atol=1e-5)
    found = evaluate(gradient_graph(forward), attack_feeds(x, 10, cotangent=cotangent))["gradient"]
    expected = torch_gradient(network, x, cotangent)
    axes = (1, 2, 3)
    errors = np.abs(found - expected).max(axes) / np.abs(expected).max(axes)
    assert np.median(errors) < 1e-5
    assert np.quantile(errors, 0.9) < 1e-3
