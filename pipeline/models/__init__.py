"""The networks, by the names that recipes use."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from pipeline.models.mobilenet_v2 import MobileNetV2
from pipeline.models.resnet import ResNet18

NETWORKS: dict[str, Callable[..., nn.Module]] = {"resnet18": ResNet18, "mobilenet_v2": MobileNetV2}


def build_network(
    arch: str,
    *,
    channels: int,
    classes: int,
    width: float = 1.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> nn.Module:
    """Build a freshly initialised network; `mean` and `std` (per channel) default to no normalisation."""
    mean = tuple(mean) if mean is not None else (0.0,) * channels
    std = tuple(std) if std is not None else (1.0,) * channels
    return NETWORKS[arch](channels=channels, classes=classes, width=width, mean=mean, std=std)
