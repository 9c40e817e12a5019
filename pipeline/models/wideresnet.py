"""WideResNet for small images (Zagoruyko and Komodakis 2016, arXiv 1605.07146), with the key names of RobustBench.

Pre-activation: every block normalises and activates its input first. Where the shape changes, the activated input feeds
branch and shortcut, else the raw input is the shortcut; so published checkpoints load, and mean what they meant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.layers import MINIMUM, Folds, Normalize

DEPTHS = range(10, 1003, 6)
"""A depth is 6 n + 4: three groups of n blocks of two convolutions, the stem, two shortcuts and the head."""


class Block(nn.Module):
    """BN, ReLU, 3x3, BN, ReLU, 3x3 and a shortcut, which is a 1x1 convolution where the shape changes."""

    folds: Folds = (("conv1", "bn2"),)

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        same = stride == 1 and inputs == outputs
        self.convShortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        shortcut: Tensor = x if self.convShortcut is None else self.convShortcut(active)
        branch: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return shortcut + branch


class Group(nn.Module):
    """The blocks of one width; the first has the stride."""

    def __init__(self, count: int, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        first, rest = Block(inputs, outputs, stride), (Block(outputs, outputs, 1) for _ in range(count - 1))
        self.layer = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)  # type: ignore[no-any-return]


class WideResNet(nn.Module):
    """Images [B, channels, H, W] in [0, 1] to logits [B, classes]; three groups, widths 16 to 64 times `width`.

    Args:
        width: the widening factor, which may be a fraction; 8 channels are the least. Depth 34 has 46,160,474
            parameters at width 10 and 184,531,674 at width 20, for three channels and ten classes.
        depth: one of DEPTHS.
        mean, std: the normalisation, per channel, that the network applies to its input; (0, 1) for RobustBench's
            entries that take raw images.

    """

    def __init__(
        self,
        *,
        channels: int,
        classes: int,
        width: float,
        mean: Sequence[float],
        std: Sequence[float],
        depth: int = 34,
    ) -> None:
        super().__init__()
        first, second, third = (max(MINIMUM, round(16 * 2**group * width)) for group in range(3))
        count = (depth - 4) // 6
        self.normalize = Normalize(mean, std)
        self.conv1 = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        self.block1 = Group(count, 16, first, 1)
        self.block2 = Group(count, first, second, 2)
        self.block3 = Group(count, second, third, 2)
        self.bn1 = nn.BatchNorm2d(third)
        self.fc = nn.Linear(third, classes)
        self.folds: Folds = (("conv1", "block1.layer.0.bn1"),) if first != 16 else ()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        features = self.block3(self.block2(self.block1(self.conv1(self.normalize(x)))))
        return self.fc(F.relu(self.bn1(features)).mean(dim=(2, 3)))  # type: ignore[no-any-return]


def measure(weights: Mapping[str, Tensor]) -> str:
    """Return what the shapes of a state_dict say: depth and width, or that it is no WideResNet."""
    count = sum(name.startswith("block1.layer.") and name.endswith(".conv1.weight") for name in weights)
    kernel = weights.get("block1.layer.0.conv1.weight")
    if not count or kernel is None:
        return "its keys are not those of a WideResNet"
    return f"its shapes are those of depth {6 * count + 4} and width {len(kernel) / 16:g}"
