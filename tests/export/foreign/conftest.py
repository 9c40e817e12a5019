"""A plain model's file and images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from tests.export.foreign.plain import LABELS, X

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


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
