"""The building block of every network here, and how it is folded for a frozen network."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


class ConvNorm(nn.Module):
    """A convolution without bias followed by batch normalisation: [B, in, H, W] to [B, out, H', W']."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))  # type: ignore[no-any-return]  # nn.Module.__call__ is untyped


class Normalize(nn.Module):
    """(x - mean) / std per channel: networks take raw images in [0, 1], so that eps means the same everywhere."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class Folded(nn.Module):
    """A frozen copy of a network in eval mode whose batch normalisations are folded into their convolutions.

    The copy answers as `network.eval()` does, up to rounding, needs no gradient for its weights, and is kept in
    channels_last. After the network has learned, `refresh` copies its weights over without allocating.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._source = [network]  # in a list, so that it is not registered as a submodule
        self.copy = copy.deepcopy(network).eval().requires_grad_(False)
        for block in _conv_norms(self.copy):
            folded = nn.Conv2d(
                block.conv.in_channels,
                block.conv.out_channels,
                block.conv.kernel_size,  # type: ignore[arg-type]  # typed as a tuple of any length
                block.conv.stride,  # type: ignore[arg-type]
                block.conv.padding,  # type: ignore[arg-type]
                groups=block.conv.groups,
                device=block.conv.weight.device,
            )
            block.conv, block.norm = folded.requires_grad_(False), nn.Identity()
        self.copy.to(memory_format=torch.channels_last)
        self.refresh()

    def forward(self, x: Tensor) -> Tensor:
        return self.copy(x)  # type: ignore[no-any-return]

    @torch.no_grad()
    def refresh(self) -> Folded:
        """Take over the present weights and running statistics of the network; return self."""
        own = self.copy.state_dict(keep_vars=True)
        for name, tensor in self._source[0].state_dict(keep_vars=True).items():
            if name in own and tensor.shape == own[name].shape:
                own[name].copy_(tensor)
        for source, target in zip(_conv_norms(self._source[0]), _conv_norms(self.copy), strict=True):
            _fold_into(source, target.conv)
        return self


def _conv_norms(network: nn.Module) -> Iterator[ConvNorm]:
    return (module for module in network.modules() if isinstance(module, ConvNorm))


def _fold_into(source: ConvNorm, target: nn.Conv2d) -> None:
    norm = source.norm
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        source.conv.weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    target.weight.copy_(weight)
    assert target.bias is not None
    target.bias.copy_(bias)
