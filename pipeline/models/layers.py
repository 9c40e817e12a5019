"""The building blocks of all networks, and their folded form for a frozen network."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

MINIMUM = 8
"""Least channels of a layer: with four, oneDNN's channels_last weight gradient corrupts memory on AVX2 (torch 2.14)."""

Folds = tuple[tuple[str, str], ...]
"""A module's attribute `folds`: pairs (convolution, batch normalisation) by name. Only the latter reads the former."""


class Convolution(nn.Conv2d):
    """A convolution that runs in fp32 where bf16 is slower: strided depthwise convolutions on a CPU.

    oneDNN has no bf16 kernel for their backward pass, which takes 14 to 25 times as long as in fp32 (torch 2.14).
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.bfloat16 and self.weight.dtype == torch.float32 and self.slow_in_bf16:
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float()).to(x.dtype)
        return super().forward(x)

    @property
    def slow_in_bf16(self) -> bool:
        """Whether this convolution runs in fp32 within a bf16 network."""
        depthwise = self.groups == self.in_channels > 1
        return depthwise and self.stride != (1, 1) and self.weight.device.type == "cpu"


class ConvNorm(nn.Module):
    """A convolution without bias followed by batch normalisation: [B, in, H, W] to [B, out, H', W']."""

    folds: Folds = (("conv", "norm"),)

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = Convolution(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
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
        self.answers_in: torch.dtype | None = None

    def forward(self, x: Tensor) -> Tensor:
        normalized = (x - self.mean) / self.std
        return normalized if self.answers_in is None else normalized.to(self.answers_in)


class Affine(nn.Module):
    """x scale + shift per channel: the form of a batch normalisation that cannot be folded into a convolution.

    A batch normalisation before a convolution (pre-activation) cannot be folded if the shortcut also reads its input,
    or if a ReLU is between. Forward and backward take a third of BatchNorm2d's time in eval mode (CPU, channels_last).
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, like: nn.BatchNorm2d) -> None:
        super().__init__()
        for name in ("scale", "shift"):
            self.register_buffer(name, torch.empty_like(like.weight.detach()).view(-1, 1, 1))
        self.answers_alike = False

    def forward(self, x: Tensor) -> Tensor:
        if self.answers_alike:
            return _Alike.apply(x, self.scale, self.shift)  # type: ignore[no-any-return]
        return torch.addcmul(self.shift, x, self.scale)

    def take(self, norm: nn.BatchNorm2d) -> None:
        """Take the values of `norm` in eval mode."""
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        self.scale.copy_(scale.view(-1, 1, 1))
        self.shift.copy_((norm.bias - norm.running_mean * scale).view(-1, 1, 1))


class _Alike(torch.autograd.Function):
    """x scale + shift, computed in float32 and returned in the type of x, by one kernel instead of three with casts."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        ctx.save_for_backward(scale)
        return torch.addcmul(shift, x, scale, out=torch.empty_like(x))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (scale,) = ctx.saved_tensors
        return torch.mul(gradient, scale, out=torch.empty_like(gradient)), None, None


class Folded(nn.Module):
    """A frozen copy of a network in eval mode: batch normalisations folded into convolutions, the rest affine.

    The copy gives the answers of `network.eval()`, up to rounding. Its weights need no gradient and are in
    channels_last. After the network has learned, `refresh` copies its weights without allocating. The modules of the
    network say in `folds` which normalisations can be folded.

    Args:
        network: the network that is copied.
        dtype: the type of the copy's weights; see `keep_in`.

    """

    def __init__(self, network: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self._source = [network]  # in a list, so that it is not registered as a submodule
        self.copy = copy.deepcopy(network).eval().requires_grad_(False)
        self._folds = tuple(folds(network))
        for conv, follower in self._folds:
            self.copy.set_submodule(conv, _with_bias(self.copy.get_submodule(conv)))
            self.copy.set_submodule(follower, nn.Identity())
        norms = [(name, norm) for name, norm in self.copy.named_modules() if _is_affine(norm)]
        self._affine = tuple(name for name, _ in norms)
        for name, norm in norms:
            assert isinstance(norm, nn.BatchNorm2d)
            self.copy.set_submodule(name, Affine(norm))
        self.copy.to(memory_format=torch.channels_last)
        keep_in(self.copy, dtype)
        self.refresh()

    def forward(self, x: Tensor) -> Tensor:
        return self.copy(x)  # type: ignore[no-any-return]

    @torch.no_grad()
    def refresh(self) -> Folded:
        """Copy the current weights and running statistics of the network; return self."""
        source, own = self._source[0], self.copy.state_dict(keep_vars=True)
        for name, tensor in source.state_dict(keep_vars=True).items():
            if name in own and tensor.shape == own[name].shape:
                own[name].copy_(tensor)
        for conv, follower in self._folds:
            _fold_into(source.get_submodule(conv), source.get_submodule(follower), self.copy.get_submodule(conv))
        for name in self._affine:
            affine, norm = self.copy.get_submodule(name), source.get_submodule(name)
            assert isinstance(affine, Affine)
            assert isinstance(norm, nn.BatchNorm2d)
            affine.take(norm)
        return self


def keep_in(folded: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Convert the weights of a folded network to `dtype`, in which it then computes without autocast; return it.

    The normalisation of the input and the remaining batch normalisations are computed in float32. The result is that of
    autocast, but the weights are cast once and not in every pass.
    """
    if dtype == torch.float32:
        return folded
    for module in folded.modules():
        if isinstance(module, Normalize):
            module.answers_in = dtype
        elif isinstance(module, Affine):
            module.answers_alike = True
        elif isinstance(module, nn.Conv2d | nn.Linear) and not getattr(module, "slow_in_bf16", False):
            module.to(dtype)
    return folded


def frozen(network: nn.Module) -> nn.Module:
    """Return the folded copy of a network that no longer learns. Unlike `Folded`, it does not keep the network."""
    return Folded(network).copy


def _is_affine(module: nn.Module) -> bool:
    """Whether a module is x scale + shift in evaluation mode: a batch normalisation with weights and statistics."""
    return isinstance(module, nn.BatchNorm2d) and module.affine and module.track_running_stats


def folds(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the convolutions of a network, each with the batch normalisation that folds into it, by name."""
    for name, module in network.named_modules():
        for conv, norm in getattr(module, "folds", ()):
            yield f"{name}.{conv}".lstrip("."), f"{name}.{norm}".lstrip(".")


def _with_bias(conv: nn.Module) -> nn.Conv2d:
    assert isinstance(conv, nn.Conv2d)
    return type(conv)(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]  # typed as a tuple of any length
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        groups=conv.groups,
        device=conv.weight.device,
    ).requires_grad_(False)


def _fold_into(conv: nn.Module, norm: nn.Module, target: nn.Module) -> None:
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(target, nn.Conv2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        conv.weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    target.weight.copy_(weight)
    assert target.bias is not None
    target.bias.copy_(bias)
