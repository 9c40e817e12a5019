from __future__ import annotations

import copy
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from export.graph.passes import OPSETS, has_no_metadata, opset_of, to_bytes
from export.network.to_onnx import to_onnx
from pipeline.models.layers import Affine, Folded
from runtime.bundle.manifest import InputShape
from runtime.errors import BadModel
from tests.export.classifiers import SIDE, evaluate

if TYPE_CHECKING:
    from tests.export.classifiers import Exported

SHAPE = InputShape(channels=2, height=6, width=5)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        return self.head(torch.relu(self.norm(self.conv(x - 0.5))).mean((2, 3)))


class Shouting(Small):
    def forward(self, x: Any) -> Any:
        return super().forward(x) if x.sum() > 0 else super().forward(-x)


def test_export_is_silent_and_leaves_the_network_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    network = Small().train()
    before = copy.deepcopy(network.state_dict())
    to_onnx(network, SHAPE)
    assert capfd.readouterr() == ("", "")
    assert network.training
    assert all(p.requires_grad for p in network.parameters())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_same_network_gives_the_same_bytes() -> None:
    network = Small()
    assert to_bytes(to_onnx(network, SHAPE).model) == to_bytes(to_onnx(network, SHAPE).model)


def test_network_that_cannot_be_exported_is_refused_with_a_hint() -> None:
    with pytest.raises(BadModel, match="cannot export") as caught:
        to_onnx(Shouting(), SHAPE)
    assert caught.value.hint


def test_export_carries_no_trace_path_or_producer(exported: Exported) -> None:
    assert has_no_metadata(exported.forward.model)
    data = to_bytes(exported.forward.model)
    for word in (b"/home", b"/tmp", b"site-packages", b".py", b"stack_trace", b"pytorch", b"pkg.torch"):
        assert word not in data


def test_batch_normalisation_is_folded_where_a_convolution_can_take_it_up_and_the_opset_supported(
    exported: Exported,
) -> None:
    operations = Counter(node.op_type for node in exported.forward.model.graph.node)
    pre_activations = sum(isinstance(module, Affine) for module in Folded(exported.network).modules())
    assert operations.pop("BatchNormalization", 0) == pre_activations
    assert set(operations) <= {"Sub", "Div", "Conv", "Relu", "Add", "ReduceMean", "Reshape", "Gemm"}
    assert opset_of(exported.forward.model) in OPSETS


@pytest.mark.parametrize("batch", [1, 3])
def test_exported_logits_equal_torch_in_any_batch(exported: Exported, batch: int) -> None:
    x = np.random.default_rng(0).random((batch, 1, SIDE, SIDE), dtype=np.float32)
    logits = evaluate(exported.forward.model, {"input": x})["logits"]
    np.testing.assert_allclose(logits, exported.network(torch.from_numpy(x)).numpy(), rtol=0, atol=1e-5)
