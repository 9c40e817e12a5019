"""Small networks and images for the training tests."""

import pytest
import torch
from torch import nn

from pipeline.models import build_network


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


NETWORKS = [
    ("resnet18", None), ("mobilenet_v2", None), ("wideresnet", 10), ("wideresnet", 16), ("dm_wideresnet", 16)
]  # fmt: skip


@pytest.fixture(params=NETWORKS, ids=str)
def trained_like(request):
    """A tiny network whose batch-norm statistics and scales are not those of a fresh one, in eval mode."""
    arch, depth = request.param
    return as_if_trained(arch, depth)


@pytest.fixture
def trained_like_of():
    """Makes such a network of one architecture."""
    return as_if_trained


def as_if_trained(arch, depth=None):
    wide = 1.0 if depth == 10 else 1.5  # width 1 cannot fold the stem, 1.5 can
    width = wide if arch.endswith("wideresnet") else 0.125
    network = build_network(arch, channels=1, classes=10, width=width, depth=depth, mean=[0.3], std=[0.4])
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    return network.eval()


class Linear(nn.Module):
    """z = W x + b in float64: every derivative is known."""

    def __init__(self, seed, pixels=12, classes=4):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.W = nn.Parameter(torch.randn(classes, pixels, generator=generator, dtype=torch.float64))
        self.b = nn.Parameter(torch.randn(classes, generator=generator, dtype=torch.float64))

    def forward(self, x):
        return x.flatten(1) @ self.W.T + self.b
