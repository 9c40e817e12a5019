"""The networks, exported once for all tests; what is prepared and opened in one; a plain model's file and images."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest

from export.gradient import gradient_graph
from export.graph import passes
from export.graph.passes import to_bytes
from export.network.to_onnx import to_onnx
from runtime.bundle.manifest import InputShape
from runtime.files import sha256
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


class Work:
    """The digests of graphs that were prepared, and of those that ONNX Runtime opened; how many are open still."""

    def __init__(self) -> None:
        self.prepared: list[str] = []
        self.opened: list[str] = []
        self._sessions: list[weakref.ref[Any]] = []

    def open(self, graph: bytes, session: Any) -> None:
        self.opened.append(sha256(graph))
        self._sessions.append(weakref.ref(session))

    @property
    def still_open(self) -> int:
        return sum(session() is not None for session in self._sessions)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    """What is prepared and opened from here on, but by ONNX Runtime's own quantiser, which opens files."""
    done, check_interface = Work(), passes.check_interface

    class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, graph: Any, *given: Any, **options: Any) -> None:
            super().__init__(graph, *given, **options)
            if isinstance(graph, bytes):
                done.open(graph, self)

    def check(model: Any) -> None:
        done.prepared.append(sha256(to_bytes(model)))
        check_interface(model)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(passes, "check_interface", check)
    return done


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
