"""MobileNetV2 for small images (Sandler et al. 2018, arXiv 1801.04381): stem and second stage have stride 1.

This is the variant of the adversarial-distillation literature. Every block has an expansion layer, also with factor 1.
A block of stride 1 whose width changes has a convolution as its shortcut. The activation is ReLU instead of ReLU6.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.layers import ConvNorm, Normalize

# expansion, channels, blocks, stride of the first block
STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class InvertedResidual(nn.Module):
    """Expand by a 1x1, filter by a depthwise 3x3, project by a 1x1 without activation; shortcut at stride 1."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = ConvNorm(inputs, inner, 1)
        self.filter = ConvNorm(inner, inner, 3, stride=stride, groups=inner)
        self.project = ConvNorm(inner, outputs, 1)
        self.residual = stride == 1
        self.shortcut = ConvNorm(inputs, outputs, 1) if stride == 1 and inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(F.relu(self.filter(F.relu(self.expand(x)))))
        return out + self.shortcut(x) if self.residual else out


class MobileNetV2(nn.Module):
    """Images [B, channels, H, W] in [0, 1] to logits [B, classes].

    Args:
        width: multiplies every layer's channels, rounded to a multiple of 8; 1.0 gives 2,296,922 parameters at
            three channels and ten classes.
        mean, std: the normalisation, per channel, that the network applies to its input.

    """

    def __init__(
        self, *, channels: int, classes: int, width: float, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.normalize = Normalize(mean, std)
        inputs = _scaled(32, width)
        self.stem = ConvNorm(channels, inputs, 3)
        blocks: list[nn.Module] = []
        for expansion, outputs, count, stride in STAGES:
            for index in range(count):
                scaled = _scaled(outputs, width)
                blocks.append(InvertedResidual(inputs, scaled, expansion, stride if index == 0 else 1))
                inputs = scaled
        self.blocks = nn.Sequential(*blocks)
        self.last = ConvNorm(inputs, _scaled(1280, width), 1)
        self.head = nn.Linear(_scaled(1280, width), classes)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = F.relu(self.last(self.blocks(F.relu(self.stem(self.normalize(x))))))
        return self.head(features.mean(dim=(2, 3)))  # type: ignore[no-any-return]


def _scaled(channels: int, width: float) -> int:
    return max(8, round(channels * width / 8) * 8)
