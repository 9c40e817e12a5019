"""Models that ONNX Runtime saved in the layout of this processor."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from export.standard.blocked import NCHWC, OF_BLOCKS
from tests.export.classifiers import torch_gradient
from tests.export.foreign.test_pack_onnxruntime import optimised
from tests.export.strangers import export, gradient_of, packed, pictures, prepared, session_of

if TYPE_CHECKING:
    from pathlib import Path

X = pictures(12, (3, 16, 16))
COTANGENT = np.random.default_rng(1).standard_normal((12, 4)).astype(np.float32)


class Network(nn.Module):
    """Convolutions first, strided, depthwise, in groups and of 1 x 1, a sum, pools, and channels that fill no block."""

    def __init__(self, between: str) -> None:
        super().__init__()
        self.between = between
        self.first = nn.Conv2d(3, 32, 3, padding=1)
        self.strided = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.short = nn.Conv2d(32, 64, 1, stride=2)
        self.depthwise = nn.Conv2d(64, 64, 3, padding=1, groups=64)
        self.groups = nn.Conv2d(64, 64, 3, padding=1, groups=2)
        self.narrow = nn.Conv2d(64, 20, 1)
        self.last = nn.Conv2d(20, 32, 3)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Any) -> Any:
        x = self.first(x).relu()
        x = (self.strided(x) + self.short(x)).relu()
        x = self.groups(self.depthwise(x).relu())
        x = F.max_pool2d(x, 2) + F.avg_pool2d(x, 2)
        x = F.interpolate(x, scale_factor=2, mode=self.between)
        x = self.narrow(x).tanh().flip(1)
        x = self.last(x).sigmoid()
        return self.head((F.adaptive_avg_pool2d(x, 1) + F.adaptive_max_pool2d(x, 1)).flatten(1))


def with_a_global_maximum(path: Path) -> None:
    """Write the largest of a whole image, for which PyTorch has a MaxPool as large, as GlobalMaxPool."""
    model = onnx.load(path)
    last = [node for node in model.graph.node if node.op_type == "MaxPool"][-1]
    last.op_type = "GlobalMaxPool"
    del last.attribute[:]
    onnx.save(model, path)


@pytest.mark.parametrize("between", ["nearest", "bilinear"])
def test_a_model_saved_for_this_processor_is_judged_as_it_came_with_torchs_gradient(
    between: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = prepared(Network(between), (3, 16, 16)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export(network, torch.from_numpy(X[:1]), tmp_path / "model.onnx", dynamo=False, dynamic=True, opset=18)
    with_a_global_maximum(tmp_path / "model.onnx")
    path = optimised(tmp_path / "model.onnx", "ALL")
    own = {node.op_type for node in onnx.load(path).graph.node if node.domain == NCHWC}
    if not own:
        pytest.skip("ONNX Runtime has no layout of its own on this processor")
    assert own == set(OF_BLOCKS)
    with torch.no_grad():
        expected = network(torch.from_numpy(X)).numpy()
    np.savez(tmp_path / "set.npz", x=X, y=expected.argmax(axis=1))
    session = session_of(packed(path, tmp_path / "set.npz", tmp_path / "bundle"))
    np.testing.assert_allclose(session.logits(X), expected, rtol=0, atol=1e-5)
    gradient = torch_gradient(network, X, COTANGENT)
    np.testing.assert_allclose(gradient_of(session, X, COTANGENT), gradient, rtol=0, atol=1e-5)
