"""WideResNet for small images (Zagoruyko and Komodakis 2016, arXiv 1605.07146), with the key names of RobustBench.

Pre-activation: every block first normalises and activates its input. If the shape changes, the activated input feeds
branch and shortcut; otherwise the raw input is the shortcut. So published checkpoints load and give the same answers.

DeepMind's WideResNet (Gowal et al. 2020, arXiv 2010.03593) is the same network in another style. Its published files
have other key names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.layers import MINIMUM, Folds, Normalize

DEPTHS = range(10, 1003, 6)
"""A depth is 6 n + 4: three groups of n blocks of two convolutions, the stem, two shortcuts and the head."""


FIRST = 16
"""Channels of the stem."""


@dataclass(frozen=True)
class Style:
    """The differences between the published networks.

    Args:
        activation: applied after every batch normalisation.
        pads_below: whether a convolution of stride 2 pads an image of even size only below and to the right, as 'same'
            padding does, and not by one on each side.

    """

    activation: Callable[[Tensor], Tensor] = F.relu
    pads_below: bool = False


ORIGINAL, DEEPMIND = Style(), Style(F.silu, pads_below=True)
KEYS_OF_DEEPMIND: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"^init_conv\.", "conv1."),
    (r"^batchnorm\.", "bn1."),
    (r"^logits\.", "fc."),
    (r"^layer\.(\d+)\.block\.", lambda found: f"block{int(found[1]) + 1}.layer."),
    (
        r"\.(batchnorm|conv)_([01])\.",
        lambda found: f".{'bn' if found[1] == 'batchnorm' else 'conv'}{int(found[2]) + 1}.",
    ),
    (r"\.shortcut\.", ".convShortcut."),
)
"""Patterns in DeepMind's key names, and their replacements here."""


def from_deepmind(name: str) -> str:
    """Return the name here of a weight in DeepMind's files; names of other files become names that are not used here.

    So weights that were trained with another activation are not mistaken for DeepMind's.
    """
    ours = name
    for pattern, replacement in KEYS_OF_DEEPMIND:
        ours = re.sub(pattern, replacement, ours)
    return ours if ours != name else f"other.{name}"


class Block(nn.Module):
    """BN, activation, 3x3, twice, and a shortcut, which is a 1x1 convolution where the shape changes."""

    folds: Folds = (("conv1", "bn2"),)

    def __init__(self, inputs: int, outputs: int, stride: int, style: Style) -> None:
        super().__init__()
        self.activation = style.activation
        self.pads_below = style.pads_below and stride == 2
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 0 if self.pads_below else 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        same = stride == 1 and inputs == outputs
        self.convShortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.activation(self.bn1(x))
        shortcut: Tensor = x if self.convShortcut is None else self.convShortcut(active)
        high, wide = x.shape[2:]
        padded = F.pad(active, (wide % 2, 1, high % 2, 1)) if self.pads_below else active
        branch: Tensor = self.conv2(self.activation(self.bn2(self.conv1(padded))))
        return shortcut + branch


class Group(nn.Module):
    """The blocks of one width; the first has the stride."""

    def __init__(self, count: int, inputs: int, outputs: int, stride: int, style: Style) -> None:
        super().__init__()
        rest = (Block(outputs, outputs, 1, style) for _ in range(count - 1))
        self.layer = nn.Sequential(Block(inputs, outputs, stride, style), *rest)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)  # type: ignore[no-any-return]


class WideResNet(nn.Module):
    """Images [B, channels, H, W] in [0, 1] to logits [B, classes]; three groups, widths 16 to 64 times `width`.

    Args:
        width: the widening factor, which may be a fraction; a layer has at least 8 channels. For three channels and
            ten classes, depth 34 has 46,160,474 parameters at width 10 and 184,531,674 at width 20; depth 94 in
            DeepMind's style has 365,915,610 at width 16.
        depth: one of DEPTHS.
        mean, std: the normalisation, per channel, that the network applies to its input; (0, 1) for RobustBench's
            entries that take raw images. DeepMind's files contain their own.
        style: ORIGINAL or DEEPMIND.

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
        style: Style = ORIGINAL,
    ) -> None:
        super().__init__()
        first, second, third = (max(MINIMUM, round(FIRST * 2**group * width)) for group in range(3))
        count = (depth - 4) // 6
        self.activation = style.activation
        self.normalize = Normalize(mean, std)
        self.conv1 = nn.Conv2d(channels, FIRST, 3, 1, 1, bias=False)
        self.block1 = Group(count, FIRST, first, 1, style)
        self.block2 = Group(count, first, second, 2, style)
        self.block3 = Group(count, second, third, 2, style)
        self.bn1 = nn.BatchNorm2d(third)
        self.fc = nn.Linear(third, classes)
        self.folds: Folds = (("conv1", "block1.layer.0.bn1"),) if first != FIRST else ()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        features = self.block3(self.block2(self.block1(self.conv1(self.normalize(x)))))
        return self.fc(self.activation(self.bn1(features)).mean(dim=(2, 3)))  # type: ignore[no-any-return]


def measure(weights: Mapping[str, Tensor], of: str = "a WideResNet") -> str:
    """Describe a state_dict by its shapes: depth and width, or that its keys are not those `of` the network."""
    count = sum(name.startswith("block1.layer.") and name.endswith(".conv1.weight") for name in weights)
    kernel = weights.get("block1.layer.0.conv1.weight")
    if not count or kernel is None:
        return f"its keys are not those of {of}"
    return f"its shapes are those of depth {6 * count + 4} and width {len(kernel) / FIRST:g}"
