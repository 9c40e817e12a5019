"""ResNet-18 for small images (He et al. 2016, arXiv 1512.03385): a 3x3 stem of stride 1, and no max-pooling."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.layers import MINIMUM, ConvNorm, Normalize


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = ConvNorm(inputs, outputs, 3, stride=stride)
        self.second = ConvNorm(outputs, outputs, 3)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else ConvNorm(inputs, outputs, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class ResNet18(nn.Module):
    """Images [B, channels, H, W] in [0, 1] to logits [B, classes]; four stages of two blocks, widths 64 to 512.

    Args:
        width: multiplies the channels of every layer, with a minimum of 8; 1.0 gives 11,173,962 parameters at three
            channels and ten classes.
        mean, std: the normalisation, per channel, that the network applies to its input.

    """

    def __init__(
        self, *, channels: int, classes: int, width: float, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        stages = [max(MINIMUM, round(64 * 2**stage * width)) for stage in range(4)]
        self.normalize = Normalize(mean, std)
        self.stem = ConvNorm(channels, stages[0], 3)
        blocks: list[nn.Module] = []
        inputs = stages[0]
        for stage, outputs in enumerate(stages):
            blocks += [BasicBlock(inputs, outputs, 1 if stage == 0 else 2), BasicBlock(outputs, outputs, 1)]
            inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.blocks(F.relu(self.stem(self.normalize(x))))
        return self.head(features.mean(dim=(2, 3)))  # type: ignore[no-any-return]
