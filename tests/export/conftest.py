"""The networks, exported once for all tests."""

from __future__ import annotations

import pytest

from export.gradient import gradient_graph
from export.to_onnx import to_onnx
from runtime.bundle import InputShape
from tests.export.classifiers import ARCHITECTURES, SIDE, Exported, seeded_network


@pytest.fixture(scope="session", params=ARCHITECTURES)
def exported(request: pytest.FixtureRequest) -> Exported:
    network = seeded_network(request.param)
    forward = to_onnx(network, InputShape(channels=1, height=SIDE, width=SIDE))
    return Exported(network, forward, gradient_graph(forward))
