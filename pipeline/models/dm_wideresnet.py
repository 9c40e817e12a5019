"""DeepMind's WideResNet for small images (Gowal et al. 2020, arXiv 2010.03593), with the key names of RobustBench.

Beside that of pipeline/models/wideresnet.py: SiLU in place of ReLU, and a convolution of stride 2 pads an image of
even size below and to the right alone, as 'same' padding does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.layers import MINIMUM, Folds, Normalize

FIRST = 16
"""Channels of the stem."""


class Block(nn.Module):
    """BN, SiLU, 3x3, BN, SiLU, 3x3 and a shortcut, which is a 1x1 convolution where the shape changes."""

    folds: Folds = (("conv_0", "batchnorm_1"),)

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.batchnorm_0 = nn.BatchNorm2d(inputs)
        self.conv_0 = nn.Conv2d(inputs, outputs, 3, stride, bias=False)
        self.batchnorm_1 = nn.BatchNorm2d(outputs)
        self.conv_1 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.silu(self.batchnorm_0(x))
        shortcut: Tensor = x if self.shortcut is None else self.shortcut(active)
        branch: Tensor = self.conv_1(F.silu(self.batchnorm_1(self.conv_0(self._padded(active)))))
        return shortcut + branch

    def _padded(self, x: Tensor) -> Tensor:
        """Pad by one all around; before a stride of 2 above and to the left only where the size is odd ('same')."""
        top, left = (1 if self.stride == 1 else size % 2 for size in x.shape[2:])
        return F.pad(x, (left, 1, top, 1))


class Group(nn.Module):
    """The blocks of one width; the first has the stride."""

    def __init__(self, count: int, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        first, rest = Block(inputs, outputs, stride), (Block(outputs, outputs, 1) for _ in range(count - 1))
        self.block = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)  # type: ignore[no-any-return]


class DmWideResNet(nn.Module):
    """Images [B, channels, H, W] in [0, 1] to logits [B, classes]; three groups, widths 16 to 64 times `width`.

    Args:
        width: the widening factor, which may be a fraction; 8 channels are the least. Depth 94 and width 16 have
            365,915,610 parameters, for three channels and ten classes.
        depth: as of `WideResNet`.
        mean, std: the normalisation, per channel, that the network applies to its input; a published file brings its
            own.

    """

    def __init__(
        self,
        *,
        channels: int,
        classes: int,
        width: float,
        mean: Sequence[float],
        std: Sequence[float],
        depth: int = 28,
    ) -> None:
        super().__init__()
        first, second, third = (max(MINIMUM, round(FIRST * 2**group * width)) for group in range(3))
        count = (depth - 4) // 6
        self.normalize = Normalize(mean, std)
        self.init_conv = nn.Conv2d(channels, FIRST, 3, 1, 1, bias=False)
        self.layer = nn.Sequential(
            Group(count, FIRST, first, 1), Group(count, first, second, 2), Group(count, second, third, 2)
        )
        self.batchnorm = nn.BatchNorm2d(third)
        self.logits = nn.Linear(third, classes)
        self.folds: Folds = (("init_conv", "layer.0.block.0.batchnorm_0"),) if first != FIRST else ()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.logits.bias)

    def forward(self, x: Tensor) -> Tensor:
        features = self.layer(self.init_conv(self.normalize(x)))
        return self.logits(F.silu(self.batchnorm(features)).mean(dim=(2, 3)))  # type: ignore[no-any-return]


def measure(weights: Mapping[str, Tensor]) -> str:
    """Return what the shapes of a state_dict say: depth and width, or that it is no such network."""
    count = sum(name.startswith("layer.0.block.") and name.endswith(".conv_0.weight") for name in weights)
    kernel = weights.get("layer.0.block.0.conv_0.weight")
    if not count or kernel is None:
        return "its keys are not those of DeepMind's WideResNet"
    return f"its shapes are those of depth {6 * count + 4} and width {len(kernel) / FIRST:g}"
