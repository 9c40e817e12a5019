"""A network that rounds as its int8 export does, to be trained through; the gradient of the rounding goes straight on.

The export (`export.precision.calibrate`) rounds every value that a convolution or a linear layer reads, for all who
read it, with one symmetric scale. It rounds the weights of these layers with one scale for each output channel, after
it has folded batch normalisation into them. Here the network itself does the same, so that its weights can adapt.

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
"""The largest integer: the ranges are symmetric, -128 is not used."""


def rounded(x: Tensor, scale: Tensor) -> Tensor:
    """Return x on the grid of `scale`, in -LEVELS to LEVELS steps; differentiated as the clipping alone."""
    clipped = x.clamp(-LEVELS * scale, LEVELS * scale)
    return clipped + ((clipped / scale).round() * scale - clipped).detach()


class Rounding(nn.Module):
    """Rounds a value with one scale; `measuring` learns the largest absolute value instead, and rounds nothing."""

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
    """A convolution or linear layer of the network, and the normalisation behind it, with its weights rounded.

    The weights stay the network's own, in its own layout. The normalisation's statistics stand still.
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
        """Return weight and bias as the layer multiplies by them: folded, and the weight rounded by output channel."""
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
    """Return the step of a range; 1 where there is nothing but zeros."""
    return torch.where(largest > 0, largest / LEVELS, torch.ones_like(largest))


class _Layers(fx.Tracer):
    """Takes the layers that are rounded, and all of PyTorch's, as they are."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, Rounded) or super().is_leaf_module(module, name)


class Quantised(nn.Module):
    """The network as its int8 export computes it, over the same weights: [B, C, H, W] in [0, 1] to logits [B, K].

    Its parameters are the network's, so that whatever trains this trains the network. Batch normalisation is that of
    evaluation mode. Which normalisations fold is said by the network's modules, in `folds`.

    Args:
        network: in float32; keeps its layout and its checkpoint.

    Raises:
        BadRecipe: its forward pass cannot be followed, or nothing in it is rounded.

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
        """The largest absolute value of what is rounded, in place."""
        return {name: module.largest for name, module in self.traced.named_children() if isinstance(module, Rounding)}

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Tensor]) -> None:
        """Set the ranges to what these images [B, C, H, W] make of the network in float32, as `minmax` does."""
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
    """Return the values that the layers read, each once, in order."""
    layers = [
        node
        for node in graph.nodes
        if node.op == "call_module" and isinstance(network.get_submodule(str(node.target)), Rounded)
    ]
    return list(dict.fromkeys(node.all_input_nodes[0] for node in layers))
