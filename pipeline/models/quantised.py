"""A network that rounds as its int8 export does, for training through the rounding with a straight-through gradient.

The export (`export.precision.calibrate`) rounds every value that a convolution or a linear layer reads, for all of its
readers, with one symmetric scale. It rounds the weights of these layers with one scale per output channel, after it has
folded batch normalisation into them. Here the network does the same, so that its weights can adapt.

Source: Jacob et al. 2018 (arXiv 1712.05877), section 3. The gradient is the straight-through estimator of Bengio et al.
2013 (arXiv 1308.3432): the identity inside the range, 0 outside.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from pipeline.models.layers import folds
from runtime.errors import BadRecipe, first_line

LEVELS = 127
"""The largest integer. Ranges are symmetric, so -128 is not used."""


def rounded(x: Tensor, scale: Tensor) -> Tensor:
    """Return x rounded to multiples of `scale`, from -LEVELS to LEVELS; its gradient is that of the clipping only."""
    clipped = x.clamp(-LEVELS * scale, LEVELS * scale)
    return clipped + ((clipped / scale).round() * scale - clipped).detach()


class Rounding(nn.Module):
    """Rounds a value with one scale. With `measuring`, it records the largest absolute value and does not round."""

    largest: Tensor

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.register_buffer("largest", torch.zeros((), device=like.device, dtype=like.dtype))
        self.measuring = False

    def forward(self, x: Tensor) -> Tensor:
        if self.measuring:
            self.largest.copy_(torch.maximum(self.largest, x.detach().abs().amax()))
            return x
        return rounded(x, _scale(self.largest))


class Rounded(nn.Module):
    """A convolution or linear layer with rounded weights, and with the normalisation that follows it folded in.

    The parameters are those of the network itself, in its own layout. The normalisation's statistics do not change.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, norm: nn.BatchNorm2d | None = None) -> None:
        super().__init__()
        self.layer, self.norm = layer, norm
        self.measuring = False

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weights()
        if isinstance(self.layer, nn.Linear):
            return F.linear(x, weight, bias)
        return self.layer._conv_forward(x, weight, bias)  # type: ignore[no-any-return]  # untyped

    def weights(self) -> tuple[Tensor, Tensor | None]:
        """Return the weight and bias that the layer uses: folded, with the weight rounded per output channel."""
        weight, bias = self.layer.weight, self.layer.bias
        if self.norm is not None:
            norm = self.norm
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            own = -norm.running_mean if bias is None else bias - norm.running_mean
            weight, bias = weight * scale.view(-1, 1, 1, 1), norm.bias + own * scale
        if not self.measuring:
            weight = rounded(weight, _scale(weight.detach().abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)))
        return weight, bias


def _scale(largest: Tensor) -> Tensor:
    """Return the step of a range; 1 if all values are zero."""
    return torch.where(largest > 0, largest / LEVELS, torch.ones_like(largest))


class _Layers(fx.Tracer):
    """Traces a network, but not into the rounded layers or those of PyTorch."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, Rounded) or super().is_leaf_module(module, name)


class Quantised(nn.Module):
    """The network as its int8 export computes it, over the same weights: [B, C, H, W] in [0, 1] to logits [B, K].

    Its parameters are those of the network, so that training this trains the network. Batch normalisation uses the
    statistics of evaluation mode. The network's modules say in `folds` which normalisations are folded.

    Args:
        network: in float32. Its layout and its checkpoint stay the same.

    Raises:
        BadRecipe: its forward pass cannot be traced, or it has no layer to round.

    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        shared = {id(tensor): tensor for tensor in chain(network.parameters(), network.buffers())}
        own = copy.deepcopy(network, shared).eval()
        pairs = dict(folds(own))
        for name, layer in [(name, layer) for name, layer in own.named_modules() if isinstance(layer, _READERS)]:
            norm = own.get_submodule(pairs[name]) if name in pairs else None
            assert norm is None or isinstance(norm, nn.BatchNorm2d)
            own.set_submodule(name, Rounded(layer, norm))
            if norm is not None:
                own.set_submodule(pairs[name], nn.Identity())
        try:
            graph = _Layers().trace(own)
        except Exception as error:  # of whatever kind the forward pass itself raises at a value that is none
            raise BadRecipe(
                f"int8: the forward pass of this network cannot be followed: {first_line(error)}",
                hint="make it free of branches on values, or leave [int8] out",
            ) from error
        like = next(network.parameters(), torch.zeros(()))
        self.traced = fx.GraphModule(own, graph)
        for number, read in enumerate(_read(graph, own)):
            self.traced.add_submodule(f"rounding_{number}", Rounding(like))
            readers = list(read.users)
            with graph.inserting_after(read):
                node = graph.call_module(f"rounding_{number}", (read,))
            for reader in readers:
                reader.replace_input_with(read, node)
        if not self.ranges:
            raise BadRecipe("int8: the network has no convolution and no linear layer", hint="leave [int8] out")
        self.traced.recompile()

    def forward(self, x: Tensor) -> Tensor:
        return self.traced(x)  # type: ignore[no-any-return]

    @property
    def ranges(self) -> dict[str, Tensor]:
        """The largest absolute value of each rounded value, by name. Changes to these tensors take effect."""
        return {name: module.largest for name, module in self.traced.named_children() if isinstance(module, Rounding)}

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Tensor]) -> None:
        """Set the ranges to the largest values in float32 for batches of images [B, C, H, W], as `minmax` does."""
        for largest in self.ranges.values():
            largest.zero_()
        with self._measuring():
            for images in batches:
                self(images)

    @contextmanager
    def _measuring(self) -> Iterator[None]:
        parts = [module for module in self.traced.modules() if isinstance(module, Rounding | Rounded)]
        for part in parts:
            part.measuring = True
        try:
            yield
        finally:
            for part in parts:
                part.measuring = False


_READERS = (nn.Conv2d, nn.Linear)


def _read(graph: fx.Graph, network: nn.Module) -> list[fx.Node]:
    """Return the values that the rounded layers read, each once, in order."""
    layers = [
        node
        for node in graph.nodes
        if node.op == "call_module" and isinstance(network.get_submodule(str(node.target)), Rounded)
    ]
    return list(dict.fromkeys(node.all_input_nodes[0] for node in layers))
