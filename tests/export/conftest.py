"""The networks, exported once for all tests; a plain model's file and images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from export.gradient import gradient_graph
from export.network.to_onnx import to_onnx
from runtime.bundle.manifest import InputShape
from tests.export.classifiers import ARCHITECTURES, SIDE, Exported, seeded_network
from tests.export.plain import LABELS, X

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="session", params=ARCHITECTURES)
def exported(request: pytest.FixtureRequest) -> Exported:
    network = seeded_network(request.param)
    forward = to_onnx(network, InputShape(channels=1, height=SIDE, width=SIDE))
    return Exported(network, forward, gradient_graph(forward))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The plain classifier's images and labels, as an .npz."""
    np.savez(tmp_path / "set.npz", x=X, y=LABELS)
    return tmp_path / "set.npz"


@pytest.fixture
def save(tmp_path: Path) -> Callable[[Any], Path]:
    def save(model: Any) -> Path:
        onnx.save(model, tmp_path / "model.onnx")
        return tmp_path / "model.onnx"

    return save
