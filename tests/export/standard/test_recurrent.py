"""LSTM, GRU and RNN written out step by step: the same answers and gradients as torch's."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.export.classifiers import torch_gradient
from tests.export.strangers import export, gradient_of, packed, session_of

if TYPE_CHECKING:
    from pathlib import Path

RANDOM = np.random.default_rng(0)
X = RANDOM.random((8, 1, 5, 6), dtype=np.float32)
COTANGENT = RANDOM.standard_normal((8, 3)).astype(np.float32)


class Rows(nn.Module):
    """Reads an image row by row."""

    def __init__(self, kind: str, *, both: bool, layers: int = 1, end: bool = False) -> None:
        super().__init__()
        self.cell = getattr(nn, kind)(6, 4, batch_first=True, bidirectional=both, num_layers=layers)
        self.head = nn.Linear((4 if end else 20) * (2 if both and not end else 1), 3)
        self.end = end

    def forward(self, x: Any) -> Any:
        rows, state = self.cell(x[:, 0])
        if self.end:
            last = state[0] if isinstance(state, tuple) else state
            return self.head(last[-1])
        return self.head(rows.flatten(1))


CASES = {
    "LSTM": ("LSTM", {"both": False}),
    "LSTM in both directions": ("LSTM", {"both": True}),
    "LSTM of two layers, its last state": ("LSTM", {"both": False, "layers": 2, "end": True}),
    "GRU": ("GRU", {"both": False}),
    "GRU in both directions, its last state": ("GRU", {"both": True, "end": True}),
    "RNN": ("RNN", {"both": True}),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dynamic", [True, False])
def test_a_recurrent_network_is_judged_as_it_came_with_torchs_gradient(
    name: str, dynamic: bool, tmp_path: Path
) -> None:
    kind, options = CASES[name]
    torch.manual_seed(0)
    network = Rows(kind, **options).eval()  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export(network, torch.from_numpy(X[:1]), tmp_path / "model.onnx", dynamo=False, dynamic=dynamic, opset=17)
    with torch.no_grad():
        labels = network(torch.from_numpy(X)).argmax(dim=1).numpy()
    np.savez(tmp_path / "set.npz", x=X, y=labels)
    session = session_of(packed(tmp_path / "model.onnx", tmp_path / "set.npz", tmp_path / "bundle"))
    expected = network(torch.from_numpy(X)).detach().numpy()
    for batch in (1, 5, 8):
        np.testing.assert_allclose(session.logits(X[:batch]), expected[:batch], rtol=0, atol=1e-5)
    gradient = torch_gradient(network, X, COTANGENT)
    assert gradient.any()
    np.testing.assert_allclose(gradient_of(session, X, COTANGENT), gradient, rtol=0, atol=1e-5)
